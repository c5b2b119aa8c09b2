"""Parquet files, and the folder of a Hugging Face dataset made of them.

Columns: ``index`` (int64, the place in the token dataset), ``source`` (string), ``codes`` or
``tokens`` (list, C order), ``shape`` (list of int32: of the array, where it has several axes) and
``meta`` (string, JSON). The schema's metadata hold the description under ``vqtok``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from vqtok.errors import UsageError
from vqtok.exporters.records import Record, Spec, synced
from vqtok.tokens.header import dump_json

GROUP_ROWS = 1000
GROUP_BYTES = 1 << 23
FILE_BYTES = 1 << 28
"""A row group has at most so many rows and bytes of codes (or one row), a file of codes."""

_CARD = """\
---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
tags:
- vqtok
---

{count:,} samples of {array} by the {modality} tokenizer `{tokenizer_name}` (fingerprint
`{tokenizer}`), exported by vqtok. Codebook sizes: {codebook_sizes}.

`{array}` is in C order{shape}, `meta` is JSON, `index` is the place in the original token dataset.
"""


def write(folder: Path, records: Iterator[Record], spec: Spec) -> Sequence[str]:
    """See :class:`~vqtok.exporters.records.Write`: ``part-00000.parquet`` and so on."""
    _write_files(folder, "part", records, spec)
    return ()


def write_hub(folder: Path, records: Iterator[Record], spec: Spec) -> Sequence[str]:
    """The same as ``data/train-00000.parquet``, with a dataset card: ``load_dataset(folder)``."""
    (folder / "data").mkdir()
    count = _write_files(folder / "data", "train", records, spec)
    shape = "" if spec.flat else ", `shape` are its axes"
    with synced(folder / "README.md") as file:
        file.write(_CARD.format(count=count, shape=shape, **spec.to_json()).encode())
    return ()


def _write_files(folder: Path, stem: str, records: Iterator[Record], spec: Spec) -> int:
    """Write them; returns the number of rows. There is a file also where there are none."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(
            f"pyarrow cannot be imported ({error}): pip install 'vqtok[export]'"
        ) from error
    schema = _schema(pyarrow, spec)
    groups = _groups(records)
    ahead = next(groups, [])
    rows = number = 0
    while ahead or not number:
        path = folder / f"{stem}-{number:05d}.parquet"
        number, size = number + 1, 0
        with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
            while ahead and size < FILE_BYTES:
                writer.write_batch(_batch(pyarrow, schema, ahead, spec))
                rows += len(ahead)
                size += sum(record.array.nbytes for record in ahead)
                ahead = next(groups, [])
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    return rows


def _groups(records: Iterator[Record]) -> Iterator[list[Record]]:
    group: list[Record] = []
    size = 0
    for record in records:
        if group and (len(group) == GROUP_ROWS or size + record.array.nbytes > GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(record)
        size += record.array.nbytes
    if group:
        yield group


def _schema(arrow: Any, spec: Spec) -> Any:
    fields = [
        ("index", arrow.int64()),
        ("source", arrow.string()),
        (spec.name, arrow.list_(arrow.from_numpy_dtype(spec.dtype))),
        *([] if spec.flat else [("shape", arrow.list_(arrow.int32()))]),
        ("meta", arrow.string()),
    ]
    return arrow.schema(fields, metadata={"vqtok": dump_json(spec.to_json())})


def _batch(arrow: Any, schema: Any, group: list[Record], spec: Spec) -> Any:
    lengths = [record.array.size for record in group]
    starts = np.cumsum([0, *lengths], dtype=np.int32)
    values = np.concatenate([record.array.reshape(-1) for record in group])
    columns = {
        "index": arrow.array([record.index for record in group], arrow.int64()),
        "source": arrow.array([_text(record.source) for record in group], arrow.string()),
        spec.name: arrow.ListArray.from_arrays(starts, arrow.array(values)),
        "meta": arrow.array([record.meta_json for record in group], arrow.string()),
    }
    if not spec.flat:
        axes = list(chain.from_iterable(record.array.shape for record in group))
        ends = np.arange(len(group) + 1, dtype=np.int32) * group[0].array.ndim
        columns["shape"] = arrow.ListArray.from_arrays(ends, arrow.array(axes, arrow.int32()))
    return arrow.record_batch([columns[name] for name in schema.names], schema=schema)


def _text(value: str) -> str:
    """Text that UTF-8 can hold: lone surrogates become question marks."""
    return value.encode("utf-8", "replace").decode("utf-8")
