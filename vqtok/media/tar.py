"""The members of a tar archive, to be read in place: offsets and lengths, nothing extracted."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from vqtok.errors import DataError, UsageError

BLOCK = 512
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class Member(NamedTuple):
    """A regular file in an archive: its name as stored (not to be trusted), and its bytes."""

    name: str
    offset: int
    length: int


def list_members(path: str) -> list[Member]:
    """The regular files of an uncompressed tar archive, in the archive's order.

    Directories, links and devices are left out. The archive must be whole: the members that
    come before a cut or a damaged header are not returned without the rest.

    Raises:
        UsageError: the archive is compressed.
        DataError: it is unreadable, no tar archive, truncated, damaged, or holds sparse members.
    """
    try:
        with open(path, "rb") as stream:
            head = stream.read(BLOCK)
            for magic, kind in _COMPRESSED.items():
                if head.startswith(magic):
                    raise UsageError(
                        f"{path}: cannot be read in place under {kind} compression; unpack it first"
                    )
            stream.seek(0)
            return list(_members(path, stream))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (tarfile.TarError, RecursionError, ValueError, OverflowError, IndexError) as error:
        if isinstance(error, (DataError, UsageError)):
            raise
        raise DataError(f"{path}: not a tar archive, truncated or damaged: {error}") from error


def _members(path: str, stream: BinaryIO) -> Iterator[Member]:
    file_size = os.fstat(stream.fileno()).st_size
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        position = -1
        while (member := archive.next()) is not None:
            # Hostile sizes could otherwise send the reader round in circles.
            if member.size < 0 or archive.offset <= position:
                raise DataError(f"{path}: damaged header at byte {member.offset:,}")
            position = archive.offset
            archive.members.clear()  # type: ignore[attr-defined]  # they would only add up
            if member.offset_data + max(member.size, 0) > file_size and member.isreg():
                raise DataError(f"{path}: truncated in the member {member.name!r:.100}")
            if member.issparse():
                raise DataError(f"{path}: the member {member.name!r:.100} is stored sparse")
            if member.isreg():
                yield Member(member.name, member.offset_data, member.size)
        _check_end(path, stream, archive.offset)


def _check_end(path: str, stream: BinaryIO, offset: int) -> None:
    """tarfile stops at a damaged header as at the end; only zeros may follow the last member."""
    stream.seek(offset)
    rest = stream.read(BLOCK)
    if len(rest) < BLOCK:
        raise DataError(f"{path}: truncated: no end mark after byte {offset:,}")
    while rest:
        if rest.strip(b"\0"):
            raise DataError(
                f"{path}: something follows the last member that could be read (byte {offset:,}): "
                "a damaged header, or several archives joined into one"
            )
        rest = stream.read(1 << 20)
