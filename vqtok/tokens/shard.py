"""Reading a shard: memory-mapped random access, every byte checked before it is believed."""

from __future__ import annotations

import mmap
import operator
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from vqtok.errors import DataError
from vqtok.tokens.header import Header, parse_json
from vqtok.tokens.layout import build_head, parse_head
from vqtok.tokens.manifest import ShardInfo
from vqtok.tokens.packing import Codes, packing_of
from vqtok.tokens.places import Places
from vqtok.tokens.writer import Sample, running_crcs

_TYPES = {"U8": "u1", "U16": "<u2", "U32": "<u4", "I32": "<i4", "I64": "<i8"}


class ShardReader:
    """One shard, memory-mapped. ``shard[i]`` is a :class:`Sample`; damage raises DataError.

    ``info`` and ``header``, from a manifest, let a shard whose first bytes are damaged be read
    nevertheless (``repaired`` is then True). Raises DataError for a file that is not a well-formed
    shard; nothing is allocated for sizes that the file merely claims.
    """

    def __init__(
        self, path: Path | str, info: ShardInfo | None = None, header: Header | None = None
    ) -> None:
        self.path = Path(path)
        data = _map(self.path)
        self.repaired = False
        try:
            self.header, tensors = parse_head(memoryview(data), self.path.name)
        except DataError:
            if info is None or header is None or info.bytes != len(data):
                raise
            head = build_head(header, info.samples, info.token_bytes, info.meta_bytes)
            self.header, tensors = parse_head(memoryview(data), self.path.name, head)
            self.repaired = True
        if header is not None and self.header != header:
            raise DataError(f"{self.path.name}: its header is not the manifest's: {self.header}")
        array = np.frombuffer(data, np.uint8)
        views = {
            name: array[tensor.begin : tensor.end].view(_TYPES[tensor.dtype]).reshape(tensor.shape)
            for name, tensor in tensors.items()
        }
        self._packing = packing_of(self.header, self.path.parent)
        self._crc32 = views["crc32"]
        self._tokens = views["tokens"].view(np.uint8)
        meta = tensors["meta"].begin, tensors["meta"].end
        size = len(self._tokens)
        self._places = Places(self.path.name, data, views, meta, size, self._packing)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        return self.read(index)

    def __iter__(self) -> Iterator[Sample]:
        return map(self.read, range(len(self)))

    @property
    def token_bytes(self) -> int:
        """Bytes that the codes of all samples take."""
        return len(self._tokens)

    def read(self, index: int, num_codebooks: int | None = None) -> Sample:
        """Sample ``index`` with codes int64 [*dims, q] of the first q = ``num_codebooks``.

        Only the bytes of those codebooks are read. Raises DataError naming the shard and the sample
        when they, the shape or the metadata are damaged, and IndexError outside the shard.
        """
        codes, meta = self._read(index, num_codebooks)
        return Sample(codes, self._parse_meta(index, meta))

    def codes(self, index: int, num_codebooks: int | None = None) -> Codes:
        """As :meth:`read`, the codes alone: metadata are checked but not parsed."""
        return self._read(index, num_codebooks)[0]

    def _read(self, index: int, num_codebooks: int | None) -> tuple[Codes, bytes]:
        count = self.header.num_codebooks if num_codebooks is None else num_codebooks
        if not 1 <= count <= self.header.num_codebooks:
            raise ValueError(
                f"num_codebooks is {count}, the dataset has {self.header.num_codebooks}"
            )
        places = self._places
        index = in_range(index, len(places), self.path.name)
        dims, start, ends = places.codes(index)
        meta = places.meta_line(index)
        data = self._tokens[start : start + ends[count - 1]]
        crc = crc32(data.data, crc32(meta, crc32(places.row(index))))
        if crc != self._crc32[index, count]:
            raise places.damage(index, "its codes, shape or metadata are damaged (CRC mismatch)")
        try:
            codes = self._packing.unpack(data, dims, ends[:count])
        except ValueError as error:
            raise places.damage(index, str(error)) from error
        self._check_codes(index, codes)
        return codes, meta

    def dims(self) -> NDArray[np.int64]:
        """Dims of all samples: int64 [N, d], zeros where they are damaged beyond doubt.

        What a sample says is only certain once it has been read.
        """
        return self._places.dims(sum(self.header.bits_per_code))

    def crcs(self, num_codebooks: int) -> NDArray[np.uint32]:
        """Stored checksums of all samples, over all but the codebooks behind the first: uint32 [N].

        Whoever changes a sample changes its checksum.
        """
        return np.array(self._crc32[:, num_codebooks], np.uint32)

    def meta(self, index: int) -> dict[str, Any]:
        """Metadata of sample ``index``; DataError when it or the shape is damaged."""
        index = in_range(index, len(self), self.path.name)
        line = self._places.meta_line(index)
        if crc32(line, crc32(self._places.row(index))) != self._crc32[index, 0]:
            raise self._places.damage(index, "its shape or metadata are damaged (CRC mismatch)")
        return self._parse_meta(index, line)

    def check(self, index: int, decode: bool = True) -> None:
        """Check everything about sample ``index``, or raise DataError.

        ``decode``: whether to check the codes too, beside the bytes that they were packed into.
        """
        if decode:
            self.read(index)
        _, start, ends = self._places.codes(index)
        edges = [start, *(start + end for end in ends)]
        planes = [self._tokens[a:b].data for a, b in pairwise(edges)]
        crcs = running_crcs(self._places.row(index), self._places.meta_line(index), planes)
        for q, (crc, stored) in enumerate(zip(crcs, self._crc32[index].tolist(), strict=True)):
            if crc != stored:
                raise self._places.damage(index, f"CRC {q} of {len(crcs)} is damaged")

    def index_problems(self) -> list[tuple[int | None, str]]:
        """See :meth:`~vqtok.tokens.places.Places.problems`."""
        return self._places.problems()

    def _parse_meta(self, index: int, line: bytes) -> dict[str, Any]:
        meta = parse_json(line, f"{self.path.name}: sample {index}: metadata")
        if not isinstance(meta, dict):
            raise self._places.damage(index, "its metadata are not a JSON object")
        return meta

    def _check_codes(self, index: int, codes: Codes) -> None:
        if codes.shape[-1] == 1:
            highest = [int(codes.max())]  # several times as fast as along an axis
        else:
            highest = np.maximum.reduce(codes.reshape(-1, codes.shape[-1])).tolist()
        # Of fewer codebooks than there are, the sizes of the first count.
        for q, (high, size) in enumerate(zip(highest, self.header.codebook_sizes, strict=False)):
            if high >= size:
                raise self._places.damage(index, f"code {high} in codebook {q} of size {size}")


def _map(path: Path) -> mmap.mmap:
    try:
        with open(path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise DataError(f"{path.name}: the file is missing ({path})") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path.name}: cannot be read: {reason}") from error


def in_range(index: int, length: int, where: str) -> int:
    """A sample's number, from 0; IndexError outside, TypeError for what is no integer."""
    try:
        index = operator.index(index)
    except TypeError:
        raise TypeError(
            f"{where}: samples are read one by one, by an integer, not by {index!r}"
        ) from None
    if not -length <= index < length:
        raise IndexError(f"{where}: sample {index} of {length}")
    return index % length if length else index
