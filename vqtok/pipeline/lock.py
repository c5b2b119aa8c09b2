"""A lock between processes that share a folder, also across machines where its files do."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path
from typing import IO

_POLL_SECONDS = 0.05
# File systems without locks. Every step is atomic and repeatable, so work there goes on without.
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class Lock:
    """A lock file, made with its folder when it is taken; a process that dies lets go of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None
        self._exclusive = False

    def take(self, *, shared: bool, seconds: float = 0) -> bool:
        """Whether it could be taken, for this process alone or ``shared``, within ``seconds``."""
        end = time.monotonic() + seconds
        while not self._try(fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def make_exclusive(self) -> bool:
        """Whether nobody else has it, who then cannot take it; else it is let go of."""
        if self._file is not None and self._exclusive:
            return True
        self.release()
        return self.take(shared=False)

    def release(self) -> None:
        """Let go of it, if it is held."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _try(self, mode: int) -> bool:
        while True:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                file = open(self.path, "w")  # noqa: SIM115
            except FileNotFoundError:
                continue  # the folder has gone in between
            try:
                fcntl.flock(file, mode | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return False
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    file.close()
                    raise
            if self._is_current(file):
                self._file, self._exclusive = file, mode == fcntl.LOCK_EX
                return True
            file.close()  # whoever had it removed it

    def _is_current(self, file: IO[str]) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self.path))
        except FileNotFoundError:
            return False
