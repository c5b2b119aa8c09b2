"""Megatron-LM indexed datasets: ``tokens.bin`` and ``tokens.idx``, one document per sample.

``--data-path OUT/tokens`` reads them. The .bin file holds the documents' tokens back to back; the
.idx file is ``MMIDIDX\\0\\0``, u64 1, u8 dtype, u64 sequences, u64 documents + 1, i32 lengths, i64
byte offsets, i64 number of the first sequence of each document and of the one after the last (see
megatron/core/datasets/indexed_dataset.py). The format has no place for metadata: they are the lines
of ``tokens.jsonl``, one per document.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtok.errors import UsageError
from vqtok.exporters.records import Record, Spec, synced
from vqtok.tokens.header import dump_json

UINT16_VOCABULARY = 65500
"""Megatron takes vocabularies below this to fit 16 bits."""

_DTYPE_CODES = {"int32": 4, "uint16": 8}


def write(folder: Path, records: Iterator[Record], spec: Spec) -> Sequence[str]:
    """See :class:`~vqtok.exporters.records.Write`; the spec must have a flat layout."""
    if not spec.flat:
        raise UsageError("megatron: a document is one line of tokens, the layout is parallel")
    dtype = np.dtype("<u2" if spec.limit < UINT16_VOCABULARY else "<i4")
    lengths = array("i")
    with synced(folder / "tokens.bin") as tokens, synced(folder / "tokens.jsonl") as lines:
        for record in records:
            tokens.write(record.array.astype(dtype).tobytes())
            lengths.append(len(record.array))
            lines.write(dump_json({"index": record.index, **record.meta}) + b"\n")
    _write_index(folder / "tokens.idx", np.array(lengths, "<i4"), dtype)
    if dtype.itemsize == 2:
        return ()
    remark = (
        f"the vocabulary of {spec.limit:,} takes 32 bits a token, twice as many as one below "
        f"{UINT16_VOCABULARY:,}"
    )
    return (remark,)


def _write_index(path: Path, lengths: NDArray[np.int32], dtype: np.dtype[Any]) -> None:
    ends = np.cumsum(lengths, dtype="<i8")
    count = len(lengths)
    with synced(path) as file:
        file.write(b"MMIDIDX\0\0" + struct.pack("<QB", 1, _DTYPE_CODES[dtype.name]))
        file.write(struct.pack("<QQ", count, count + 1))
        file.write(lengths.tobytes())
        file.write(((ends - lengths) * dtype.itemsize).astype("<i8").tobytes())
        file.write(np.arange(count + 1, dtype="<i8").tobytes())
