"""Files appear complete or not at all: temporary name, fsync, rename, fsync of the directory."""

from __future__ import annotations

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


def temporary_name(path: Path) -> Path:
    """A fresh hidden name beside ``path`` that :func:`remove_temporaries` takes for a leftover."""
    start = path.name.encode("utf-8", "replace")[:100].decode("utf-8", "ignore")
    return path.with_name(f".{start}.tmp.{uuid.uuid4().hex}")


@contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the name ``path`` when the block ends without an error.

    After a return the content and the name are on disk, or, if not ``durable``, will be as soon as
    the system sees fit. After an exception ``path`` is as it was before and the temporary file is
    gone; after a kill the temporary file may be left over.
    """
    temporary = temporary_name(path)
    try:
        with naming(path), open(temporary, "xb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if durable:
            sync_directory(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new folder that takes the name ``path``, whole, when the block ends without an error.

    What was at ``path`` is then gone. After an exception it is as it was, and the new folder is
    gone; what a killed process left over is removed the next time ``path`` is made. Files are to be
    synced by who writes them.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    temporary = temporary_name(path)
    temporary.mkdir()
    lock = os.open(temporary, os.O_RDONLY)
    try:
        with suppress(OSError):  # where there are no locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield temporary
        sync_directory(temporary)
        if path.exists():
            before = temporary_name(path)
            path.rename(before)
            temporary.rename(path)
            shutil.rmtree(before)
        else:
            temporary.rename(path)
        sync_directory(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _remove_abandoned(path: Path) -> None:
    """Delete the folders that killed processes left while they made ``path``."""
    start = temporary_name(path).name[: -len(".tmp.") - 32]
    for other in path.parent.iterdir():
        if is_temporary(other) and other.name[: -len(".tmp.") - 32] == start and other.is_dir():
            lock = os.open(other, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(other)
            except OSError:
                continue  # somebody is at work there
            finally:
                os.close(lock)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name ``path`` in an OSError that names no file, such as a full disk while writing."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
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
