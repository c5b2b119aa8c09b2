"""MosaicML streaming datasets (MDS): ``index.json`` and ``shard.00000.mds``.

Columns: ``index`` (int), ``source`` (str), ``codes`` or ``tokens`` (ndarray) and ``meta`` (json). A
shard is u32 samples, u32 offsets of the samples and of the end, JSON of the columns, samples; a
sample is u32 sizes of the columns whose size varies, then the columns by name (see
streaming/base/format/mds).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtok.exporters.records import Record, Spec, grouped, synced

SHARD_BYTES = 1 << 26


def write(folder: Path, records: Iterator[Record], spec: Spec) -> Sequence[str]:
    """See :class:`~vqtok.exporters.records.Write`."""
    encodings = {
        "index": "int",
        "source": "str",
        spec.name: f"ndarray:{spec.dtype.name}",
        "meta": "json",
    }
    names = sorted(encodings)
    columns = {
        "column_encodings": [encodings[name] for name in names],
        "column_names": names,
        "column_sizes": [8 if name == "index" else None for name in names],
        "compression": None,
        "format": "mds",
        "hashes": [],
        "size_limit": SHARD_BYTES,
    }
    config = json.dumps({**columns, "version": 2}, sort_keys=True).encode("ascii")

    def encode(record: Record) -> bytes:
        values = {
            "index": record.index.to_bytes(8, "little", signed=True),
            "source": record.source.encode("utf-8", "replace"),
            spec.name: _array(record.array),
            "meta": record.meta_json.encode("utf-8"),
        }
        sizes = [len(values[name]) for name in names if name != "index"]
        return np.array(sizes, "<u4").tobytes() + b"".join(values[name] for name in names)

    shards: list[dict[str, Any]] = []
    for group in grouped(records, SHARD_BYTES, encode):
        name = f"shard.{len(shards):05d}.mds"
        size = _write_shard(folder / name, group, config)
        raw = {"basename": name, "bytes": size, "hashes": {}}
        shard = {**columns, "raw_data": raw, "samples": len(group), "version": 2, "zip_data": None}
        shards.append(shard)
    with synced(folder / "index.json") as file:
        text = json.dumps({"shards": shards, "version": 2}, sort_keys=True)
        file.write(text.encode("ascii"))
    return ()


def _write_shard(path: Path, samples: list[bytes], config: bytes) -> int:
    start = 4 + 4 * (len(samples) + 1) + len(config)
    offsets = start + np.cumsum([0, *map(len, samples)], dtype=np.int64)
    with synced(path) as file:
        file.write(len(samples).to_bytes(4, "little") + offsets.astype("<u4").tobytes() + config)
        file.writelines(samples)
    return int(offsets[-1])


def _array(values: NDArray[Any]) -> bytes:
    """``ndarray:DTYPE``: u8 axes * 4 + log2 of the bytes of a size, sizes, values."""
    width = next(width for width in range(4) if max(values.shape) < 1 << (8 << width))
    axes = np.array(values.shape, f"<u{1 << width}").tobytes()
    return bytes([values.ndim << 2 | width]) + axes + values.tobytes()
