"""What the codes of a dataset look like: how many of each, how evenly used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtok.errors import DataError
from vqtok.tokens.notes import Notes
from vqtok.tokens.reader import TokenReader

MAX_COUNTED = 1 << 22
"""Codebooks of more entries than this are not counted, so that memory stays bounded."""


@dataclass
class Statistics:
    """Totals over the samples that could be read.

    ``codes``: positions, each with one code of every codebook. ``pixels``: of the images, None if
    the metadata of one do not tell its size. ``seconds``: of the sounds, None if the metadata of
    one do not tell its rate and number of samples. ``counts``: per codebook int64 [K], None for a
    codebook that is too large. ``damaged``: one message per sample that could not be read.
    ``notes``: what was noted when the samples were encoded.
    """

    samples: int = 0
    codes: int = 0
    pixels: int | None = 0
    seconds: float | None = 0.0
    counts: list[NDArray[np.int64] | None] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    notes: Notes = field(default_factory=Notes)


def collect_statistics(
    reader: TokenReader, progress: Callable[[int], object] | None = None
) -> Statistics:
    """Read every sample once. ``progress`` is called with 1 after each."""
    sizes = reader.header.codebook_sizes
    result = Statistics(
        counts=[np.zeros(size, np.int64) if size <= MAX_COUNTED else None for size in sizes]
    )
    for index in range(len(reader)):
        try:
            sample = reader[index]
        except DataError as error:
            result.damaged.append(str(error))
        else:
            _add(result, sample.codes.reshape(-1, len(sizes)), sample.meta)
        if progress is not None:
            progress(1)
    return result


def _add(result: Statistics, codes: NDArray[np.int64], meta: Mapping[str, Any]) -> None:
    result.samples += 1
    result.codes += len(codes)
    result.notes.add(meta)
    size: Any = meta.get("size")
    length: list[Any] = [meta.get("samples"), meta.get("sample_rate")]
    if result.pixels is not None:
        result.pixels = result.pixels + size[0] * size[1] if _is_pair(size) else None
    if result.seconds is not None:
        result.seconds = result.seconds + length[0] / length[1] if _is_pair(length) else None
    for q, counts in enumerate(result.counts):
        if counts is not None:
            used, times = np.unique(codes[:, q], return_counts=True)
            counts[used] += times


def _is_pair(value: Any) -> bool:
    """Whether it is a list of two positive integers."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(number) is int and number > 0 for number in value)
    )


def usage(counts: NDArray[np.int64]) -> float:
    """Fraction of the codebook that occurs at all, in [0, 1]."""
    return float(np.count_nonzero(counts) / len(counts))


def entropy(counts: NDArray[np.int64]) -> float:
    """Order-0 entropy in bits per code, in [0, log2 K]; 0 without any codes."""
    total = counts.sum()
    if total == 0:
        return 0.0
    frequencies = counts[counts > 0] / total
    return max(0.0, float(-(frequencies * np.log2(frequencies)).sum()))


def perplexity(counts: NDArray[np.int64]) -> float:
    """2 to the entropy: how many equally frequent codes would be as unpredictable, in [1, K]."""
    return float(2 ** entropy(counts))
