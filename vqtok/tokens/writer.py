"""Writing a shard: pack, checksum, commit."""

from __future__ import annotations

import hashlib
import tempfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vqtok.files import atomic_write, naming
from vqtok.tokens.header import Header, dump_json
from vqtok.tokens.layout import build_head
from vqtok.tokens.manifest import ShardInfo, is_plain_name
from vqtok.tokens.packing import packing_of

MAX_META = 1 << 20
"""Most bytes of one sample's metadata."""

MAX_BUFFERED = 1 << 25
"""Most bytes of packed codes that are held in memory while a shard is made."""


@dataclass(frozen=True)
class Sample:
    """One image or sound. ``codes``: integers [*dims, Q] with codebook q's in [0, K_q), int64 when
    read. ``meta``: a JSON object, such as {"source": "a/b.jpg", "size": [H, W]}.
    """

    codes: NDArray[Any]
    meta: Mapping[str, Any] = field(default_factory=dict)


def write_shard(path: Path | str, samples: Iterable[Sample], header: Header) -> ShardInfo:
    """Write ``samples`` as one shard; complete and on disk when this returns, else not there.

    The bytes depend on the samples and the header alone. Memory holds one sample and a bounded part
    of the packed codes, the rest waits in a nameless file beside ``path``.

    A prior that the header names must be in the same folder, or come with vqtok.

    Raises ValueError naming the sample whose codes or metadata the header does not allow, DataError
    where the prior is missing.
    """
    path = Path(path)
    if not is_plain_name(path.name):
        raise ValueError(f"{path.name!r} cannot name a shard")
    digest = hashlib.sha256()
    size = 0
    with tempfile.SpooledTemporaryFile(MAX_BUFFERED, dir=str(path.parent)) as planes:
        builder = _Builder(header, planes, path.parent)
        for sample in samples:
            with naming(path):
                builder.add(sample)
        with atomic_write(path) as file:
            for chunk in builder.chunks():
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
    return ShardInfo(
        file=path.name,
        samples=len(builder.crcs),
        bytes=size,
        token_bytes=builder.offsets[-1] * builder.packing.unit,
        meta_bytes=builder.meta_offsets[-1],
        sha256=digest.hexdigest(),
    )


class _Builder:
    """The tensors of a shard while samples are added."""

    def __init__(self, header: Header, planes: IO[bytes], folder: Path) -> None:
        self.header = header
        self.packing = packing_of(header, folder)
        self.offsets = [0]
        self.meta_offsets = [0]
        self.shapes: list[tuple[int, ...]] = []
        self.sizes: list[list[int]] = []
        self.crcs: list[list[int]] = []
        self.planes = planes
        self.metas: list[bytes] = []

    def add(self, sample: Sample) -> None:
        where = f"sample {len(self.crcs)}"
        codes = check_codes(np.asarray(sample.codes), self.header, where)
        meta = _meta_line(sample.meta, where)
        dims = codes.shape[:-1]
        planes = self.packing.pack(codes)
        sizes = list(map(len, planes)) if self.packing.has_sizes else []
        if max(sizes, default=0) >= 1 << 32:
            raise ValueError(f"{where}: a codebook's codes take {max(sizes)} bytes, too many")
        self.offsets.append(self.offsets[-1] + sum(map(len, planes)) // self.packing.unit)
        self.meta_offsets.append(self.meta_offsets[-1] + len(meta))
        self.shapes.append(dims)
        self.sizes.append(sizes)
        self.crcs.append(running_crcs(index_bytes(dims, sizes), meta, planes))
        self.planes.writelines(planes)
        self.metas.append(meta)

    def chunks(self) -> Iterable[bytes]:
        """The file, piece by piece."""
        samples = len(self.crcs)
        token_bytes = self.offsets[-1] * self.packing.unit
        head = build_head(self.header, samples, token_bytes, self.meta_offsets[-1])
        yield head
        yield np.array(self.offsets, "<i8").tobytes()
        yield np.array(self.meta_offsets, "<i8").tobytes()
        yield np.array(self.shapes, "<i4").tobytes()
        yield np.array(self.sizes, "<u4").tobytes()
        yield np.array(self.crcs, "<u4").tobytes()
        yield zlib.crc32(head).to_bytes(4, "little")
        self.planes.seek(0)
        while chunk := self.planes.read(1 << 20):
            yield chunk
        yield from self.metas


def index_bytes(dims: Sequence[int], sizes: Sequence[int]) -> bytes:
    """A sample's rows of ``shape`` and of ``plane_sizes``, which checksums begin with."""
    return np.array(dims, "<i4").tobytes() + np.array(sizes, "<u4").tobytes()


def running_crcs(index: bytes, meta: bytes | memoryview, planes: Iterable[Any]) -> list[int]:
    """The row of ``crc32``: after index and metadata, then after each plane of bytes."""
    crcs = [zlib.crc32(meta, zlib.crc32(index))]
    for plane in planes:
        crcs.append(zlib.crc32(plane, crcs[-1]))
    return crcs


def check_codes(codes: NDArray[Any], header: Header, where: str) -> NDArray[Any]:
    """``codes`` itself if the header allows it, else ValueError starting with ``where``."""
    wanted = (*header.dims, header.num_codebooks)
    if codes.ndim != len(wanted) or codes.shape[-1] != header.num_codebooks or 0 in codes.shape:
        names = ", ".join(map(str, wanted))
        raise ValueError(f"{where}: codes have shape {list(codes.shape)}, expected [{names}]")
    if codes.dtype.kind not in "iu":
        raise ValueError(f"{where}: codes are {codes.dtype}, not integers")
    if max(codes.shape) >= 1 << 31:
        raise ValueError(f"{where}: codes of shape {list(codes.shape)} are too long")
    flat = codes.reshape(-1, header.num_codebooks)
    spans = zip(flat.min(axis=0), flat.max(axis=0), header.codebook_sizes, strict=True)
    for q, (low, high, size) in enumerate(spans):
        if low < 0 or high >= size:
            raise ValueError(f"{where}: codes of codebook {q} span [{low}, {high}], K is {size}")
    return codes


def _meta_line(meta: Mapping[str, Any], where: str) -> bytes:
    if not isinstance(meta, Mapping):
        raise ValueError(f"{where}: metadata must be a mapping, got {type(meta).__name__}")
    try:
        line = dump_json(dict(meta)) + b"\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: metadata cannot be written as JSON ({error})") from error
    if len(line) > MAX_META:
        raise ValueError(f"{where}: {len(line)} bytes of metadata, more than {MAX_META}")
    return line
