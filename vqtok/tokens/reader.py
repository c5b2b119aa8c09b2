"""Reading token files: memory-mapped random access, every byte checked before it is believed."""

from __future__ import annotations

import mmap
import operator
import resource
import zlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtok.errors import DataError
from vqtok.tokens.header import Header, parse_json
from vqtok.tokens.layout import build_head, parse_head
from vqtok.tokens.manifest import Manifest, ShardInfo, read_manifest
from vqtok.tokens.packing import Codes, packing_of
from vqtok.tokens.writer import MAX_META, Sample, index_bytes, running_crcs

MAX_OPEN_SHARDS = max(128, min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8))
"""Shards a TokenReader keeps mapped, an open file each; the least recently used is closed first."""

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
        self._data = data
        self._packing = packing_of(self.header, self.path.parent)
        self._offsets, self._meta_offsets = views["offsets"], views["meta_offsets"]
        self._shape, self._crc32 = views["shape"], views["crc32"]
        self._sizes = views.get("plane_sizes") if self._packing.has_sizes else None
        self._tokens = views["tokens"].view(np.uint8)
        self._meta = tensors["meta"]

    def __len__(self) -> int:
        return len(self._shape)

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

    def _read(self, index: int, num_codebooks: int | None) -> tuple[Codes, bytes]:
        count = self.header.num_codebooks if num_codebooks is None else num_codebooks
        if not 1 <= count <= self.header.num_codebooks:
            raise ValueError(
                f"num_codebooks is {count}, the dataset has {self.header.num_codebooks}"
            )
        index = _in_range(index, len(self), self.path.name)
        dims, start, ends = self._locate(index)
        meta = self._meta_line(index)
        data = self._tokens[start : start + ends[count - 1]]
        crc = zlib.crc32(data.data, zlib.crc32(meta, zlib.crc32(self._index_bytes(index))))
        if crc != int(self._crc32[index, count]):
            raise self._damage(index, "its codes, shape or metadata are damaged (CRC mismatch)")
        try:
            codes = self._packing.unpack(data, dims, ends[:count])
        except ValueError as error:
            raise self._damage(index, str(error)) from error
        self._check_codes(index, codes)
        return codes, meta

    def codes(self, index: int, num_codebooks: int | None = None) -> Codes:
        """As :meth:`read`, the codes alone: metadata are checked but not parsed."""
        return self._read(index, num_codebooks)[0]

    def dims(self) -> NDArray[np.int64]:
        """Dims of all samples: int64 [N, d], zeros where they are damaged beyond doubt.

        What a sample says is only certain once it has been read.
        """
        dims = self._shape.astype(np.int64)
        bits = dims.prod(axis=1, dtype=np.float64) * sum(self.header.bits_per_code)
        room = np.diff(self._offsets) * float(8 * self._packing.unit)
        if self._sizes is not None:  # coded, in as little as that
            room *= 64
        for index in np.flatnonzero((dims < 1).any(axis=1) | (bits > room) | (room <= 0)).tolist():
            try:
                self._locate(index)
            except DataError:  # noqa: PERF203
                dims[index] = 0
        return dims

    def crcs(self, num_codebooks: int) -> NDArray[np.uint32]:
        """Stored checksums of all samples, over all but the codebooks behind the first: uint32 [N].

        Whoever changes a sample changes its checksum.
        """
        return np.array(self._crc32[:, num_codebooks], np.uint32)

    def meta(self, index: int) -> dict[str, Any]:
        """Metadata of sample ``index``; DataError when it or the shape is damaged."""
        index = _in_range(index, len(self), self.path.name)
        line = self._meta_line(index)
        if zlib.crc32(line, zlib.crc32(self._index_bytes(index))) != self._crc32[index, 0]:
            raise self._damage(index, "its shape or metadata are damaged (CRC mismatch)")
        return self._parse_meta(index, line)

    def check(self, index: int, decode: bool = True) -> None:
        """Check everything about sample ``index``, or raise DataError.

        ``decode``: whether to check the codes too, beside the bytes that they were packed into.
        """
        if decode:
            self.read(index)
        _, start, ends = self._locate(index)
        edges = [start, *(start + end for end in ends)]
        planes = [self._tokens[a:b].data for a, b in pairwise(edges)]
        crcs = running_crcs(self._index_bytes(index), self._meta_line(index), planes)
        for q, (crc, stored) in enumerate(zip(crcs, self._crc32[index].tolist(), strict=True)):
            if crc != stored:
                raise self._damage(index, f"CRC {q} of {len(crcs)} is damaged")

    def index_problems(self) -> list[tuple[int | None, str]]:
        """(sample, message) wherever samples do not follow one another without gaps.

        The sample is None for the ends of the token and metadata tensors.
        """
        problems: list[tuple[int | None, str]] = []
        for name, offsets, size in (
            ("offsets", self._offsets, len(self._tokens) // self._packing.unit),
            ("meta_offsets", self._meta_offsets, self._meta.end - self._meta.begin),
        ):
            if int(offsets[0]) != 0:
                problems.append((0, f"{name} start at {int(offsets[0])}, not 0"))
            if int(offsets[-1]) != size:
                problems.append((None, f"{name} end at {int(offsets[-1])}, not at {size}"))
        for index in range(len(self)):
            try:
                _, start, ends = self._locate(index)
                line = self._meta_line(index)
            except DataError:
                continue  # check() reports it
            if (start + ends[-1]) != int(self._offsets[index + 1]) * self._packing.unit:
                problems.append((index, "the next sample's codes do not start where its own end"))
            if int(self._meta_offsets[index]) + len(line) != int(self._meta_offsets[index + 1]):
                problems.append((index, "the next sample's metadata do not follow its own"))
        return problems

    def _locate(self, index: int) -> tuple[tuple[int, ...], int, list[int]]:
        """dims, first byte, and plane ends of a sample, all inside the token tensor.

        The length follows from the sample's own shape, so a damaged neighbour does no harm; a start
        that neither neighbour confirms is refused, which rules out samples that overlap.
        """
        unit = self._packing.unit
        dims = tuple(self._shape[index].tolist())
        if min(dims) < 1:
            raise self._damage(index, f"its shape is {list(dims)}")
        ends = self._ends(index, dims)
        start = int(self._offsets[index]) * unit
        if not 0 <= start <= len(self._tokens) - ends[-1]:
            raise self._damage(
                index,
                f"codes of shape {list(dims)} at byte {start} do not fit into the "
                f"{len(self._tokens)} bytes of codes",
            )
        if start + ends[-1] == int(self._offsets[index + 1]) * unit:
            return dims, start, ends
        previous_end = self._end_by_size(index - 1) if index else 0
        if start != previous_end:
            raise self._damage(index, "its codes overlap another sample's or leave a gap")
        return dims, start, ends

    def _ends(self, index: int, dims: tuple[int, ...]) -> list[int]:
        """Where the planes of a sample end; DataError when they cannot be so long."""
        sizes = [] if self._sizes is None else self._sizes[index].tolist()
        try:
            return self._packing.ends(dims, sizes)
        except ValueError as error:
            raise self._damage(index, str(error)) from error

    def _end_by_size(self, index: int) -> int:
        """Where the codes of a sample end by its own entries, -1 when these cannot be."""
        try:
            ends = self._ends(index, tuple(self._shape[index].tolist()))
        except DataError:
            return -1
        return int(self._offsets[index]) * self._packing.unit + ends[-1]

    def _index_bytes(self, index: int) -> bytes:
        sizes = () if self._sizes is None else self._sizes[index]
        return index_bytes(self._shape[index], sizes)

    def _meta_line(self, index: int) -> bytes:
        begin = self._meta.begin + int(self._meta_offsets[index])
        if not self._meta.begin <= begin < self._meta.end:
            raise self._damage(index, f"its metadata start at byte {begin - self._meta.begin}")
        newline = self._data.find(b"\n", begin, min(begin + MAX_META, self._meta.end))
        if newline < 0:
            raise self._damage(index, "its metadata do not end")
        if begin > self._meta.begin and self._data[begin - 1] != 0x0A:
            follower = int(self._meta_offsets[index + 1]) + self._meta.begin
            if follower != newline + 1:
                raise self._damage(index, "its metadata start inside another sample's")
        return self._data[begin : newline + 1]

    def _parse_meta(self, index: int, line: bytes) -> dict[str, Any]:
        meta = parse_json(line, f"{self.path.name}: sample {index}: metadata")
        if not isinstance(meta, dict):
            raise self._damage(index, "its metadata are not a JSON object")
        return meta

    def _check_codes(self, index: int, codes: Codes) -> None:
        highest = codes.reshape(-1, codes.shape[-1]).max(axis=0).tolist()
        # Of fewer codebooks than there are, the sizes of the first count.
        for q, (high, size) in enumerate(zip(highest, self.header.codebook_sizes, strict=False)):
            if high >= size:
                raise self._damage(index, f"code {high} in codebook {q} of size {size}")

    def _damage(self, index: int, message: str) -> DataError:
        return DataError(f"{self.path.name}: sample {index}: {message}")


class TokenReader:
    """A dataset folder (with its manifest) or a single shard, as one sequence of samples.

    Shards are opened when first needed. A damaged or missing shard or sample raises DataError when
    it is read; all others stay readable. Instances can be pickled and used after a fork.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.manifest: Manifest | None = None
        self._shards: OrderedDict[int, ShardReader] = OrderedDict()
        if self.path.is_dir():
            self.manifest = read_manifest(self.path)
            self.header = self.manifest.header
            counts = [shard.samples for shard in self.manifest.shards]
        else:
            self._shards[0] = ShardReader(self.path)
            self.header = self._shards[0].header
            counts = [len(self._shards[0])]
        self._starts = [0, *accumulate(counts)]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Sample:
        return self.read(index)

    def __iter__(self) -> Iterator[Sample]:
        return map(self.read, range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    @property
    def token_bytes(self) -> int:
        """Bytes that the codes of all samples take in the files."""
        if self.manifest is None:
            return self._shards[0].token_bytes
        return sum(shard.token_bytes for shard in self.manifest.shards)

    def read(self, index: int, num_codebooks: int | None = None) -> Sample:
        """See :meth:`ShardReader.read`; ``index`` counts over all shards."""
        shard, local = self._find(index)
        return shard.read(local, num_codebooks)

    def codes(self, index: int, num_codebooks: int | None = None) -> Codes:
        """See :meth:`ShardReader.codes`; ``index`` counts over all shards."""
        shard, local = self._find(index)
        return shard.codes(local, num_codebooks)

    def dims(self) -> NDArray[np.int64]:
        """See :meth:`ShardReader.dims`; of all shards, zeros for one that cannot be read."""
        tables = [np.zeros((0, len(self.header.dims)), np.int64)]
        for start, stop in pairwise(self._starts):
            if start < stop:
                try:
                    tables.append(self._find(start)[0].dims())
                except DataError:
                    tables.append(np.zeros((stop - start, len(self.header.dims)), np.int64))
        return np.concatenate(tables)

    def crcs(self, num_codebooks: int) -> NDArray[np.uint32]:
        """See :meth:`ShardReader.crcs`; of all shards, zeros for one that cannot be read."""
        tables = [np.zeros(0, np.uint32)]
        for start, stop in pairwise(self._starts):
            if start < stop:
                try:
                    tables.append(self._find(start)[0].crcs(num_codebooks))
                except DataError:
                    tables.append(np.zeros(stop - start, np.uint32))
        return np.concatenate(tables)

    def meta(self, index: int) -> dict[str, Any]:
        """See :meth:`ShardReader.meta`; ``index`` counts over all shards."""
        shard, local = self._find(index)
        return shard.meta(local)

    def _find(self, index: int) -> tuple[ShardReader, int]:
        index = _in_range(index, len(self), str(self.path))
        number = bisect_right(self._starts, index) - 1
        shard = self._shards.get(number)
        if shard is None:
            shard = self._open(number)
        else:
            self._shards.move_to_end(number)
        return shard, index - self._starts[number]

    def _open(self, number: int) -> ShardReader:
        assert self.manifest is not None
        info = self.manifest.shards[number]
        shard = ShardReader(self.path / info.file, info, self.header)
        if len(shard) != info.samples:
            raise DataError(f"{info.file}: {len(shard)} samples, the manifest says {info.samples}")
        self._shards[number] = shard
        if len(self._shards) > MAX_OPEN_SHARDS:
            self._shards.popitem(last=False)
        return shard


def _map(path: Path) -> mmap.mmap:
    try:
        with open(path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise DataError(f"{path.name}: the file is missing ({path})") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path.name}: cannot be read: {reason}") from error


def _in_range(index: int, length: int, where: str) -> int:
    try:
        index = operator.index(index)
    except TypeError:
        raise TypeError(
            f"{where}: samples are read one by one, by an integer, not by {index!r}"
        ) from None
    if not -length <= index < length:
        raise IndexError(f"{where}: sample {index} of {length}")
    return index % length if length else index
