"""Documents of known lengths into sequences of one length, without reading any of them.

An epoch's documents, in their order, are taken in blocks of :data:`BLOCK`. What came before a block
is in a table of one number per block, so any sequence is found without going through the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK = 128
Lengths = NDArray[np.int64]


@dataclass(frozen=True)
class Piece:
    """Tokens [start, stop) of the document at a place of the epoch."""

    place: int
    start: int
    stop: int


class Split:
    """Documents end to end, cut every ``length`` tokens: no padding but at the end of an epoch."""

    def __init__(self, length: int) -> None:
        self.length = length

    def weigh(self, blocks: Lengths) -> Lengths:
        """What each block of lengths [B, BLOCK] adds to the table: int64 [B]."""
        return np.asarray(blocks.sum(axis=1), np.int64)

    def sequences(self, total: int) -> int:
        """Sequences of an epoch whose blocks add up to ``total``."""
        return -(-total // self.length)

    def pieces(
        self, number: int, table: Lengths, block_of: Callable[[int], Lengths]
    ) -> list[Piece]:
        """The pieces of a sequence, in order."""
        at, stop = number * self.length, min((number + 1) * self.length, int(table[-1]))
        found: list[Piece] = []
        block = int(np.searchsorted(table, at, side="right")) - 1
        while at < stop:
            ends = table[block] + np.cumsum(block_of(block))
            index = int(np.searchsorted(ends, at, side="right"))
            while at < stop and index < len(ends):
                begin = int(ends[index - 1]) if index else int(table[block])
                end = min(stop, int(ends[index]))
                if end > at:
                    found.append(Piece(block * BLOCK + index, at - begin, end - begin))
                at, index = end, index + 1
            block += 1
        return found


class Whole:
    """Documents are kept whole: each block by first fit, the longest first, the rest is padding.

    A document longer than a sequence is cut; only its last piece shares a sequence.
    """

    def __init__(self, length: int) -> None:
        self.length = length

    def weigh(self, blocks: Lengths) -> Lengths:
        """See :meth:`Split.weigh`; here sequences."""
        full, rest = np.divmod(blocks, self.length)
        bins = first_fit(rest, self.length).max(axis=1, initial=-1) + 1
        return np.asarray(full.sum(axis=1) + bins, np.int64)

    def sequences(self, total: int) -> int:
        """See :meth:`Split.sequences`."""
        return total

    def pieces(
        self, number: int, table: Lengths, block_of: Callable[[int], Lengths]
    ) -> list[Piece]:
        """See :meth:`Split.pieces`."""
        block = int(np.searchsorted(table, number, side="right")) - 1
        lengths = block_of(block)
        number -= int(table[block])
        full, rest = np.divmod(lengths, self.length)
        before = np.cumsum(full)
        if number < before[-1]:
            index = int(np.searchsorted(before, number, side="right"))
            start = (number - int(before[index] - full[index])) * self.length
            return [Piece(block * BLOCK + index, start, start + self.length)]
        bins = first_fit(rest[None], self.length)[0]
        return [
            Piece(block * BLOCK + index, int(full[index]) * self.length, int(lengths[index]))
            for index in np.flatnonzero(bins == number - before[-1]).tolist()
        ]


class Single:
    """A document per sequence, from its start; what is longer than a sequence is left out."""

    def __init__(self, length: int) -> None:
        self.length = length

    def weigh(self, blocks: Lengths) -> Lengths:
        """See :meth:`Split.weigh`; here documents that have tokens."""
        return np.asarray((blocks > 0).sum(axis=1), np.int64)

    def sequences(self, total: int) -> int:
        """See :meth:`Split.sequences`."""
        return total

    def pieces(
        self, number: int, table: Lengths, block_of: Callable[[int], Lengths]
    ) -> list[Piece]:
        """See :meth:`Split.pieces`."""
        block = int(np.searchsorted(table, number, side="right")) - 1
        lengths = block_of(block)
        index = int(np.flatnonzero(lengths)[number - int(table[block])])
        return [Piece(block * BLOCK + index, 0, min(self.length, int(lengths[index])))]


Packing = Split | Whole | Single

PACKINGS: dict[str, Callable[[int], Packing]] = {"split": Split, "whole": Whole, "single": Single}


def packing_of(pack: str, length: int) -> Packing:
    """The packing of a name; ValueError for another name or a length below 1."""
    if pack not in PACKINGS:
        raise ValueError(f"pack must be one of {tuple(PACKINGS)}, got {pack!r}")
    if type(length) is not int or length < 1:
        raise ValueError(f"length must be at least 1, got {length!r}")
    return PACKINGS[pack](length)


def first_fit(sizes: Lengths, capacity: int) -> Lengths:
    """Bins of things by first fit, the largest first, of many rows at once.

    Args:
        sizes: int64 [B, n], each in [0, capacity].
        capacity: of a bin.

    Returns:
        int64 [B, n]: the bin of each thing, -1 for size 0. Bins are numbered in the order of the
        first thing in them.
    """
    rows = np.arange(len(sizes))
    order = np.argsort(-sizes, axis=1, kind="stable")
    space = np.full(sizes.shape, capacity, np.int64)
    bins = np.full(sizes.shape, -1, np.int64)
    for thing in order.T:
        size = sizes[rows, thing]
        chosen = (space >= size[:, None]).argmax(axis=1)
        space[rows, chosen] -= size
        bins[rows, thing] = np.where(size > 0, chosen, -1)
    return _by_first(bins)


def _by_first(bins: Lengths) -> Lengths:
    """Bins [B, n] renumbered by their first member in each row; -1 stays."""
    count = bins.shape[1]
    places = np.where(bins < 0, count, np.arange(count))
    first = np.full((len(bins), count + 1), count, np.int64)
    np.minimum.at(first, (np.arange(len(bins))[:, None], bins), places)
    rank = np.argsort(np.argsort(first[:, :count], axis=1, kind="stable"), axis=1, kind="stable")
    return np.where(bins < 0, -1, np.take_along_axis(rank, np.maximum(bins, 0), axis=1))
