"""litdata streaming datasets: ``index.json`` and ``chunk-0-0.bin``.

With a layout each item is the tokens alone, a stream for ``TokensLoader``; the metadata are then
the lines of ``items.jsonl``. Else items are dicts of ``index`` (int), ``source`` (str), ``codes``
(numpy array) and ``meta`` (str, JSON). A chunk is u32 items, u32 offsets of the items and of the
end, items; a dict is u32 sizes of its values, then the values (see litdata/streaming/writer.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vqtok.exporters.records import Record, Spec, grouped, synced
from vqtok.tokens.header import dump_json

CHUNK_BYTES = 1 << 26

_DTYPES = {"uint8": 4, "uint16": 5, "int32": 2, "int64": 3}
_LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}


def write(folder: Path, records: Iterator[Record], spec: Spec) -> Sequence[str]:
    """See :class:`~vqtok.exporters.records.Write`."""
    width = spec.dtype.itemsize
    chunks: list[dict[str, Any]] = []
    with synced(folder / "items.jsonl") if spec.flat else nullcontext() as lines:

        def encode(record: Record) -> bytes:
            if lines is None:
                return _dict(record)
            lines.write(dump_json({"index": record.index, **record.meta}) + b"\n")
            return record.array.tobytes()

        for group in grouped(records, CHUNK_BYTES, encode):
            name = f"chunk-0-{len(chunks)}.bin"
            size = sum(map(len, group))
            with synced(folder / name) as file:
                _write_chunk(file, group)
            chunks.append(
                {
                    "chunk_bytes": 4 + 4 * (len(group) + 1) + size,
                    "chunk_size": len(group),
                    "dim": size // width if spec.flat else None,
                    "filename": name,
                }
            )
    index = {"chunks": chunks, "config": _config(spec), "updated_at": "0"}
    with synced(folder / "index.json") as file:
        file.write(json.dumps(index).encode("ascii"))
    return ()


def _config(spec: Spec) -> dict[str, Any]:
    if spec.flat:
        data_format, tree = [f"no_header_numpy:{_DTYPES[spec.dtype.name]}"], _LEAF
    else:
        names = [spec.name, "index", "meta", "source"]
        data_format = ["numpy", "int", "str", "str"]
        context = json.dumps(names)
        tree = {"type": "builtins.dict", "context": context, "children_spec": [_LEAF] * 4}
    return {
        "chunk_bytes": CHUNK_BYTES,
        "chunk_size": None,
        "compression": None,
        "data_format": data_format,
        "data_spec": json.dumps([1, tree]),
        "encryption": None,
        "item_loader": "TokensLoader" if spec.flat else "PyTreeLoader",
    }


def _write_chunk(file: BinaryIO, items: list[bytes]) -> None:
    offsets = 4 + 4 * (len(items) + 1) + np.cumsum([0, *map(len, items)], dtype=np.int64)
    file.write(len(items).to_bytes(4, "little") + offsets.astype("<u4").tobytes())
    file.writelines(items)


def _dict(record: Record) -> bytes:
    values = [
        _array(record.array),
        record.index.to_bytes(8, "little", signed=True),
        record.meta_json.encode("utf-8"),
        record.source.encode("utf-8", "replace"),
    ]
    return np.array([len(value) for value in values], "<u4").tobytes() + b"".join(values)


def _array(values: NDArray[Any]) -> bytes:
    head = np.array([_DTYPES[values.dtype.name], values.ndim, *values.shape], "<u4")
    return head.tobytes() + values.tobytes()
