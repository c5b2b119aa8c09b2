"""Files appear complete or not at all: temporary name, fsync, rename, fsync of the directory."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_TEMPORARY = re.compile(r"\.tmp\.[0-9a-f]{32}$")
# File systems without hard links, or where this user may make none.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def temporary_name(path: Path) -> Path:
    """A fresh hidden name beside ``path`` that :func:`remove_temporaries` takes for a leftover."""
    start = path.name.encode("utf-8", "replace")[:100].decode("utf-8", "ignore")
    return path.with_name(f".{start}.tmp.{uuid.uuid4().hex}")


@contextmanager
def atomic_write(path: Path, *, durable: bool = True, replace: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the name ``path`` when the block ends without an error.

    After a return the content and the name are on disk, or, if not ``durable``, will be as soon as
    the system sees fit. After an exception ``path`` is as it was before and the temporary file is
    gone; after a kill the temporary file may be left over.

    ``replace``: False raises FileExistsError if there is something at ``path`` by then; of several
    processes, on several machines that share the folder, one makes the file.
    """
    temporary = temporary_name(path)
    try:
        with naming(path), open(temporary, "xb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        if replace:
            os.replace(temporary, path)
        else:
            _rename_new(temporary, path)
        if durable:
            sync_directory(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _rename_new(temporary: Path, path: Path) -> None:
    """Give a file the name ``path`` unless that is taken: FileExistsError then."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):  # as well as such a file system allows
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        os.rename(temporary, path)
    else:
        temporary.unlink()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new folder that takes the name ``path``, whole, when the block ends without an error.

    What was at ``path`` is then gone, but for its permissions. After an exception it is as it was,
    and the new folder is gone; what a killed process left over is removed the next time ``path`` is
    made. The two folders change places at once, so that ``path`` is there at any time; where the
    file system cannot do that (NFS), a kill in between leaves none, and the old one comes back the
    next time ``path`` is made. Files are to be synced by who writes them.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    _clean_up(path)
    temporary = temporary_name(path)
    temporary.mkdir()
    lock = os.open(temporary, os.O_RDONLY)
    try:
        with suppress(OSError):  # where there are no locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield temporary
        sync_directory(temporary)
        if path.exists():
            shutil.copymode(path, temporary)
            before = _change_places(temporary, path)
            sync_directory(path.parent)
            shutil.rmtree(before)
        else:
            temporary.rename(path)
        sync_directory(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _change_places(new: Path, path: Path) -> Path:
    """The folder ``new`` becomes ``path``; returns where what was there is now."""
    if _exchange(new, path):
        return new
    before = _former_name(path)
    lock = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # so that nobody takes it for left over in between
            fcntl.flock(lock, fcntl.LOCK_EX)
        path.rename(before)
        new.rename(path)
    finally:
        os.close(lock)
    return before


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names at once; whether the system and the file system can."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    return bool(rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)


def _former_name(path: Path) -> Path:
    return temporary_name(path.with_name(f"was.{path.name}"))


def _clean_up(path: Path) -> None:
    """Bring ``path`` back if a process was killed where it was neither the old nor the new folder,
    and delete what killed processes left while they made it.
    """
    former, unfinished = _stem(_former_name(path)), _stem(temporary_name(path))
    for other in path.parent.iterdir():
        if is_temporary(other) and _stem(other) in (former, unfinished) and other.is_dir():
            lock = os.open(other, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _stem(other) == former and not path.exists():
                    other.rename(path)
                else:
                    shutil.rmtree(other)
            except OSError:
                continue  # somebody is at work there
            finally:
                os.close(lock)


def _stem(temporary: Path) -> str:
    """A temporary name without what makes it fresh."""
    return temporary.name[: -len(".tmp.") - 32]


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name ``path`` in an OSError that names no file (a full disk) or its temporary name."""
    try:
        yield
    except OSError as error:
        wanted = error.filename is None or is_temporary(Path(os.fsdecode(error.filename)))
        if wanted and error.errno is not None:  # without it, it says a message of its own
            error.filename = str(path)
        raise


def sync_directory(folder: Path) -> None:
    """Make renames and removals inside ``folder`` durable (a no-op where the OS cannot)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_temporary(path: Path) -> bool:
    """Whether ``path`` is named like an unfinished file of :func:`atomic_write`."""
    return _TEMPORARY.search(path.name) is not None


def remove_temporaries(folder: Path) -> None:
    """Delete the unfinished files and folders that a killed run left in ``folder``."""
    for path in folder.iterdir():
        if is_temporary(path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
