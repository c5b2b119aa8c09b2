"""What exporters are given: one record per sample, and what all records have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from vqtok.tokens import Header
from vqtok.tokens.header import dump_json
from vqtok.tokens.sequences import SequenceLayout

INFO = "vqtok-export.json"
"""Beside the exported files: where they come from and what the numbers mean."""


@dataclass(frozen=True)
class Record:
    """One sample.

    ``index``: its place in the token dataset, damaged ones counted. ``array``: codes [*dims, Q], or
    the tokens that a layout makes of them, of the dtype of the spec. ``meta``: its metadata.
    """

    index: int
    array: NDArray[Any]
    meta: Mapping[str, Any]

    @property
    def source(self) -> str:
        """Where it came from; "" where the metadata do not say."""
        source = self.meta.get("source")
        return source if isinstance(source, str) else ""

    @property
    def meta_json(self) -> str:
        """The metadata as JSON."""
        return dump_json(dict(self.meta)).decode("utf-8")


@dataclass(frozen=True)
class Spec:
    """What all records have in common. ``codebook_sizes``: of the exported codebooks."""

    header: Header
    codebook_sizes: tuple[int, ...]
    layout: SequenceLayout | None = None

    @property
    def name(self) -> str:
        """What an array is called: codes, or tokens where there is a layout."""
        return "codes" if self.layout is None else "tokens"

    @property
    def flat(self) -> bool:
        """Whether arrays have one axis."""
        return self.layout is not None and not self.layout.parallel

    @property
    def limit(self) -> int:
        """All numbers are below this."""
        return max(self.codebook_sizes) if self.layout is None else self.layout.vocabulary_size

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The smallest of uint8, uint16, int32 and int64 that holds the numbers."""
        for name in ("uint8", "uint16", "int32"):
            if self.limit - 1 <= np.iinfo(name).max:
                return np.dtype(name)
        return np.dtype("int64")

    def to_json(self) -> dict[str, Any]:
        """The description that goes beside the exported files."""
        header = self.header
        facts: dict[str, Any] = {
            "tokenizer": header.tokenizer,
            "tokenizer_name": header.tokenizer_name,
            "modality": header.modality,
            "codebook_sizes": list(self.codebook_sizes),
            "array": self.name,
        }
        if self.layout is None:
            return {**facts, "axes": [*header.dims, "codebook"]}
        return {
            **facts,
            "vocabulary_size": self.layout.vocabulary_size,
            "layout": self.layout.to_json(),
        }


class Write(Protocol):
    """An exporter: writes records into a new, empty folder, syncing its files.

    Memory must not grow with the number of records but for a few bytes each. Returns remarks for
    people. Raises UsageError for a spec that the format cannot hold.
    """

    def __call__(self, folder: Path, records: Iterator[Record], spec: Spec) -> Sequence[str]: ...


@contextmanager
def synced(path: Path) -> Iterator[BinaryIO]:
    """A new file that is on disk when the block ends."""
    with open(path, "xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def grouped(
    records: Iterable[Record], limit: int, encode: Callable[[Record], bytes]
) -> Iterator[list[bytes]]:
    """Encoded records in groups of at most ``limit`` bytes, or one that is larger."""
    group: list[bytes] = []
    size = 0
    for record in records:
        data = encode(record)
        if group and size + len(data) > limit:
            yield group
            group, size = [], 0
        group.append(data)
        size += len(data)
    if group:
        yield group
