"""Keep what decoders print about odd files out of the user's terminal, safely in threads."""

from __future__ import annotations

import os
import re
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

_FILTER = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_lock = threading.Lock()
_users = 0


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Ignore warnings that Pillow's own modules raise while any thread is inside.

    ``warnings.catch_warnings`` swaps the filters of the whole process, and two threads that
    leave it out of order restore each other's. Here one narrow filter is added for as long as
    somebody needs it, and everything else in the list is left alone.
    """
    global _users
    with _lock:
        _users += 1
        if _FILTER not in warnings.filters:
            warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                with suppress(ValueError):  # somebody else replaced the list meanwhile
                    warnings.filters.remove(_FILTER)  # type: ignore[attr-defined]


_MPG123 = re.compile(rb"(\[src/libmpg123/|Note: |Warning: |$)")
_STDERR = 2
_mpg123_lock = threading.Lock()
_mpg123_users = 0
_mpg123_held: tuple[int, IO[bytes]] | None = None  # the true stderr, and what stands in for it


@contextmanager
def quiet_mpg123() -> Iterator[None]:
    """Drop what libmpg123 says on stderr while any thread is inside.

    It writes there itself, and libsndfile has no switch for it. What others write meanwhile is
    passed on a moment later, when the last thread leaves.
    """
    global _mpg123_users
    with _mpg123_lock:
        if not _mpg123_users:
            _hold_stderr()
        _mpg123_users += 1
    try:
        yield
    finally:
        with _mpg123_lock:
            _mpg123_users -= 1
            if not _mpg123_users:
                _release_stderr()


def _hold_stderr() -> None:
    global _mpg123_held
    with suppress(OSError):  # a process may have no stderr
        true = os.dup(_STDERR)
        held = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        os.dup2(held.fileno(), _STDERR)
        _mpg123_held = true, held


def _release_stderr() -> None:
    global _mpg123_held
    if _mpg123_held is None:
        return
    (true, held), _mpg123_held = _mpg123_held, None
    os.dup2(true, _STDERR)
    os.close(true)
    with held:
        held.seek(0)
        lines = held.read().splitlines(keepends=True)
        kept = b"".join(line for line in lines if not _MPG123.match(line))
    with suppress(OSError):
        os.write(_STDERR, kept)
