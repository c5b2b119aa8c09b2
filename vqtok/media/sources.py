"""An input of a job: a file, or a member of a tar archive that is read in place."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

from vqtok.errors import DataError

FINGERPRINT_BYTES = 4096
"""Bytes at either end of an input that go into its fingerprint."""


@dataclass(frozen=True)
class Source:
    """One input: a file, or a member of a tar archive that is read in place.

    Attributes:
        uri: relative POSIX name, free of ``..``, the same on every machine; for metadata and
            messages. Two sources may share one.
        path: the file to open, absolute.
        offset: first byte of the member in the archive; None for a plain file.
        length: bytes of the member; None for a plain file.
    """

    uri: str
    path: str
    offset: int | None = None
    length: int | None = None

    @property
    def size(self) -> int:
        """Bytes of the input. Raises OSError when the file is gone."""
        return os.stat(self.path).st_size if self.length is None else self.length

    def open(self) -> BinaryIO:
        """Open the input for reading in binary.

        Raises:
            OSError: it is missing or not readable.
            DataError: it is no regular file, or the archive is now shorter than it was.
        """
        if not stat.S_ISREG(os.stat(self.path).st_mode):
            raise DataError(f"{self.uri}: not a regular file")
        stream = open(self.path, "rb")  # noqa: SIM115
        if self.offset is None or self.length is None:
            return stream
        if os.fstat(stream.fileno()).st_size < self.offset + self.length:
            stream.close()
            raise DataError(f"{self.uri}: the archive {self.path} has become shorter")
        return io.BufferedReader(_Member(stream, self.offset, self.length), 1 << 16)

    def fingerprint(self) -> str:
        """SHA-256 over the size and both ends of the input; "" when it cannot be read.

        It tells inputs of one name apart at the price of 8 KiB each: files that differ in the
        middle alone have the same.
        """
        try:
            if not stat.S_ISREG(os.stat(self.path).st_mode):
                return ""
            size, start = self.size, self.offset or 0
            digest = hashlib.sha256(size.to_bytes(8, "little"))
            with open(self.path, "rb", buffering=0) as stream:
                for position in (0, max(0, size - FINGERPRINT_BYTES)):
                    stream.seek(start + position)
                    digest.update(stream.read(min(FINGERPRINT_BYTES, size)))
        except OSError:
            return ""
        return digest.hexdigest()

    def read_bytes(self) -> bytes:
        """The whole input; fails as :meth:`open` does."""
        with self.open() as stream:
            return stream.read()

    def to_json(self) -> dict[str, Any]:
        """A dict for ``json.dump``; :meth:`from_json` gives the same source back."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Source:
        """The inverse of :meth:`to_json`. Raises DataError when the dict is not one of its."""
        try:
            source = cls(**fields)
            member = (source.offset, source.length)
            if not (isinstance(source.uri, str) and isinstance(source.path, str)):
                raise TypeError("uri and path must be strings")
            if member != (None, None) and not all(type(n) is int and n >= 0 for n in member):
                raise TypeError("offset and length must both be counts of bytes")
        except TypeError as error:
            raise DataError(f"not a source: {fields!r:.200}: {error}") from error
        return source


class _Member(io.RawIOBase):
    """Part of an open file as a file of its own; closing it closes that."""

    def __init__(self, file: BinaryIO, offset: int, length: int) -> None:
        self._file = file
        self._offset = offset
        self._length = length
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        if origin + offset < 0:
            raise ValueError(f"cannot seek to {origin + offset}")
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        room = memoryview(buffer).cast("B")
        count = max(0, min(len(room), self._length - self._position))
        self._file.seek(self._offset + self._position)
        content = self._file.read(count)
        room[: len(content)] = content
        self._position += len(content)
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()


Openable = str | os.PathLike[str] | bytes | Source
"""What a file's content can be given as: a path, the bytes themselves, or a source."""


def name_of(source: Openable) -> str:
    """What messages call an input."""
    if isinstance(source, Source):
        return source.uri
    return f"<{len(source)} bytes>" if isinstance(source, bytes) else os.fspath(source)


def opened(source: Openable) -> BinaryIO:
    """An input opened for reading in binary; fails as :meth:`Source.open` does."""
    if isinstance(source, Source):
        return source.open()
    return io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")
