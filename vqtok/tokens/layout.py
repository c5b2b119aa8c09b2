"""The safetensors envelope of a shard: its first bytes, built and checked.

Layout of safetensors: a little-endian u64 n, n bytes of JSON that describe the tensors, and the
tensors without gaps. The JSON here is a pure function of the header and four sizes, so a damaged
one can be rebuilt from the manifest.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vqtok.errors import DataError
from vqtok.tokens.header import SMALL_VERSION, Header, dump_json, parse_json
from vqtok.tokens.packing import packing_of

MAX_HEAD = 1 << 20
"""Most bytes of JSON at the start of a shard."""

ITEM_BYTES = {"U8": 1, "U16": 2, "I32": 4, "U32": 4, "I64": 8}


@dataclass(frozen=True)
class Tensor:
    """Where a tensor of the file lies: ``begin`` and ``end`` in bytes from the file's start."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def tensor_table(
    header: Header, samples: int, token_bytes: int, meta_bytes: int
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """dtype and shape of what a shard holds, in file order (aligned to their items)."""
    packing = packing_of(header)
    sizes = {"plane_sizes": ("U32", (samples, header.num_codebooks))} if packing.has_sizes else {}
    return {
        "offsets": ("I64", (samples + 1,)),
        "meta_offsets": ("I64", (samples + 1,)),
        "shape": ("I32", (samples, len(header.dims))),
        **sizes,
        "crc32": ("U32", (samples, header.num_codebooks + 1)),
        "header_crc32": ("U32", (1,)),
        "tokens": (packing.dtype, (token_bytes // packing.unit,)),
        "meta": ("U8", (meta_bytes,)),
    }


def _listed(
    header: Header, table: Mapping[str, tuple[str, tuple[int, ...]]]
) -> Mapping[str, tuple[str, tuple[int, ...]]]:
    """The tensors by which a file of this version shows that: names cost bytes."""
    if header.format_version < SMALL_VERSION:
        return table
    content = {name: table[name] for name in ("tokens", "meta")}
    index = sum(_num_bytes(entry) for name, entry in table.items() if name not in content)
    return {"index": ("U8", (index,)), **content}


def _num_bytes(entry: tuple[str, tuple[int, ...]]) -> int:
    dtype, shape = entry
    return math.prod(shape) * ITEM_BYTES[dtype]


def build_head(header: Header, samples: int, token_bytes: int, meta_bytes: int) -> bytes:
    """The bytes of a shard before its first tensor, padded with spaces to a multiple of 8."""
    description: dict[str, Any] = {"__metadata__": header.to_metadata()}
    end = 0
    table = tensor_table(header, samples, token_bytes, meta_bytes)
    for name, (dtype, shape) in _listed(header, table).items():
        begin, end = end, end + _num_bytes((dtype, shape))
        description[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = dump_json(description)
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEAD:
        raise ValueError(f"the header takes {len(text)} bytes, more than {MAX_HEAD}")
    return len(text).to_bytes(8, "little") + text


def parse_head(
    data: memoryview, where: str, rebuilt: bytes | None = None
) -> tuple[Header, dict[str, Tensor]]:
    """Read and check the first bytes of a shard; ``data`` is the whole file.

    ``rebuilt``: what :func:`build_head` says they were, to be believed instead of damaged ones.

    Raises DataError naming ``where`` unless the tensors tile the file exactly, have the dtypes and
    shapes that the header asks for, and the CRC of the first bytes is right.
    """
    head = _cut_head(data, where) if rebuilt is None else rebuilt
    tensors, metadata = _parse_safetensors(head, len(data), where)
    if rebuilt is None and _stored_crc(data, tensors, where) != zlib.crc32(head):
        raise DataError(f"{where}: the header is damaged (CRC mismatch)")
    header = Header.from_metadata(metadata, where)
    if header.format_version >= SMALL_VERSION:
        tensors = {**tensors, **_parts_of_index(header, tensors, where)}
    _check_tensors(header, tensors, where)
    return header, tensors


def _stored_crc(data: memoryview, tensors: Mapping[str, Tensor], where: str) -> int:
    """What stands at the end of the index."""
    if "header_crc32" in tensors or "index" not in tensors:
        end = _wanted(tensors, "header_crc32", "U32", where, (1,)).end
    else:
        index = _wanted(tensors, "index", "U8", where, None)
        end = max(index.end, index.begin + 4)
    return int.from_bytes(data[end - 4 : end], "little")


def _parts_of_index(header: Header, tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Where in ``index`` lies what has a tensor of its own in a file of version 1."""
    index = _wanted(tensors, "index", "U8", where, None)
    none, one = (
        sum(map(_num_bytes, tensor_table(header, samples, 0, 0).values())) for samples in (0, 1)
    )
    samples, rest = divmod(index.end - index.begin - none, one - none)
    if samples < 0 or rest:
        raise DataError(f"{where}: an index of {index.end - index.begin} bytes is of no samples")
    parts, end = {}, index.begin
    for name, (dtype, shape) in tensor_table(header, samples, 0, 0).items():
        if name not in ("tokens", "meta"):
            begin, end = end, end + _num_bytes((dtype, shape))
            parts[name] = Tensor(dtype, shape, begin, end)
    return parts


def _cut_head(data: memoryview, where: str) -> bytes:
    if len(data) < 8:
        raise DataError(f"{where}: {len(data)} bytes are too few for a token file")
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEAD or 8 + length > len(data):
        raise DataError(
            f"{where}: not a token file, cut short or damaged: it claims {length} header bytes in "
            f"{len(data)} bytes"
        )
    return bytes(data[: 8 + length])


def _parse_safetensors(
    head: bytes, file_bytes: int, where: str
) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    description = parse_json(head[8:], where)
    if not isinstance(description, dict):
        raise DataError(f"{where}: the header is not a JSON object")
    metadata = description.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise DataError(f"{where}: __metadata__ is not a JSON object")
    tensors = {
        name: _parse_tensor(entry, len(head), f"{where}: tensor {name!r}")
        for name, entry in description.items()
    }
    end = len(head)
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != end:
            raise DataError(f"{where}: tensor {name!r} overlaps another or leaves a gap")
        end = tensor.end
    if end != file_bytes:
        raise DataError(f"{where}: the tensors end at byte {end}, the file at byte {file_bytes}")
    return tensors, metadata


def _parse_tensor(entry: object, base: int, where: str) -> Tensor:
    if not isinstance(entry, dict):
        raise DataError(f"{where}: not a JSON object")
    dtype: Any = entry.get("dtype")
    shape: Any = entry.get("shape")
    span: Any = entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise DataError(f"{where}: dtype {dtype!r} is not one of {tuple(ITEM_BYTES)}")
    if not _is_counts(shape) or not _is_counts(span) or len(span) != 2:
        raise DataError(f"{where}: shape {shape!r} or data_offsets {span!r} are malformed")
    if span[1] - span[0] != math.prod(shape) * ITEM_BYTES[dtype]:
        raise DataError(f"{where}: data_offsets {span} do not hold shape {shape} of {dtype}")
    return Tensor(dtype, tuple(shape), base + span[0], base + span[1])


def _is_counts(value: Any) -> bool:
    """A short list of integers in [0, 2**63): nothing that could overflow or stall a product."""
    return (
        isinstance(value, list)
        and len(value) <= 8
        and all(type(item) is int and 0 <= item < 1 << 63 for item in value)
    )


def _check_tensors(header: Header, tensors: Mapping[str, Tensor], where: str) -> None:
    shape = tensors.get("shape")
    samples = shape.shape[0] if shape is not None and shape.shape else 0
    for name, (dtype, wanted) in tensor_table(header, samples, 0, 0).items():
        free_length = name in ("tokens", "meta")
        tensor = _wanted(tensors, name, dtype, where, None if free_length else wanted)
        if free_length and len(tensor.shape) != 1:
            raise DataError(f"{where}: tensor {name!r} has shape {tensor.shape}, not one axis")


def _wanted(
    tensors: Mapping[str, Tensor],
    name: str,
    dtype: str,
    where: str,
    shape: tuple[int, ...] | None,
) -> Tensor:
    tensor = tensors.get(name)
    if tensor is None:
        raise DataError(f"{where}: tensor {name!r} is missing")
    if tensor.dtype != dtype or shape not in (None, tensor.shape):
        raise DataError(
            f"{where}: tensor {name!r} is {tensor.dtype} {list(tensor.shape)}, "
            f"expected {dtype} {'[any]' if shape is None else list(shape)}"
        )
    return tensor
