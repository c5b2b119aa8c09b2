"""Integer adaptive context mixing in plain Python: the oracle of the native code, and what runs
without it. FORMAT.md of vqtok.tokens defines the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from vqtok.ops.range_coder import RangeDecoder, RangeEncoder

MAX_CODEBOOK_SIZE = 1 << 20
MAX_GROUPS = 1 << 18
MAX_SEEN = 60
REACH = 2047
RATES = tuple(131072 // (2 * seen + 3) for seen in range(MAX_SEEN + 1))
TRUST = (0, 26214, 39322, 52429)
MAX_TRUST = 72090
MIX_RATE = 5
MAX_WEIGHT = 1 << 20
SQUASH = (
    *(22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625, 24743),
    *(32768, 40793, 47911, 53581, 57724, 60565, 62428, 63615, 64357, 64816, 65097, 65269),
    *(65374, 65438, 65476, 65500, 65514),
)


def encode(planes: NDArray[np.uint32], codebook_size: int) -> bytes:
    """The stream of the last of the planes uint32 [q + 1, rows, columns]."""
    coder = RangeEncoder()
    model = _Model(coder, 5 if len(planes) > 2 else 4, codebook_size)
    for code, contexts in zip(planes[-1].flat, _contexts(planes), strict=True):
        model.code(contexts, int(code))
    return coder.finish()


def decode(planes: NDArray[np.uint32], codebook_size: int, data: bytes) -> bool:
    """Fill the last of the planes; False if bytes were left over."""
    coder = RangeDecoder(data)
    model = _Model(coder, 5 if len(planes) > 2 else 4, codebook_size)
    for at, contexts in zip(np.ndindex(planes.shape[1:]), _contexts(planes), strict=True):
        planes[-1][at] = model.code(contexts, 0)
    return not coder.has_rest


def _contexts(planes: NDArray[np.uint32]) -> Iterator[list[int]]:
    """What the codes of the last plane are predicted from; each made when its turn comes."""
    here, (_, rows, columns) = planes[-1], planes.shape
    for row in range(rows):
        for column in range(columns):
            contexts = [0, 0, 0, 0]
            if column:
                contexts[1] = int(here[row, column - 1]) + 1
            if row:
                contexts[2] = int(here[row - 1, column]) + 1
            if len(planes) > 1:
                contexts[3] = int(planes[-2][row, column]) + 1
            elif row and column + 1 < columns:
                contexts[3] = int(here[row - 1, column + 1]) + 1
            if len(planes) > 2:
                contexts.append(int(planes[0][row, column]) + 1)
            yield contexts


def squash(x: int) -> int:
    """65536 / (1 + exp(-x / 256)), x in [-2047, 2047], as the format has it."""
    low, high = SQUASH[(x + 2048) >> 7], SQUASH[((x + 2048) >> 7) + 1]
    return low + ((high - low) * ((x + 2048) & 127) >> 7)


@cache
def stretch_table() -> tuple[int, ...]:
    """For p in [0, 4096) the least x whose squash is at least 16 p + 8, REACH if there is none."""
    table, x = [], -REACH
    for p in range(4096):
        while x < REACH and squash(x) < 16 * p + 8:
            x += 1
        table.append(x)
    return tuple(table)


class _Counter:
    __slots__ = ("one", "seen")

    def __init__(self) -> None:
        self.one, self.seen = 32768, 0


def _bucket(seen: int) -> int:
    return seen if seen < 2 else 2 if seen < 4 else 3


def _first_weights(buckets: tuple[int, ...]) -> list[int]:
    trust = [TRUST[bucket] for bucket in buckets]
    total = sum(trust)
    return [each * MAX_TRUST // total for each in trust] if total > MAX_TRUST else trust


class _Model:
    """The counters and weights of one plane."""

    def __init__(self, coder: RangeEncoder | RangeDecoder, models: int, codebook_size: int) -> None:
        self._coder = coder
        self._size = codebook_size
        self._bits = max(1, (codebook_size - 1).bit_length())
        self._groups: list[dict[tuple[int, int], list[_Counter]]] = [{} for _ in range(models)]
        self._weights: dict[tuple[int, ...], list[int]] = {}

    def code(self, contexts: list[int], code: int) -> int:
        """Codes one code; returns it."""
        node, inside = 1, 1
        for level in range(self._bits):
            if level % 3 == 0:
                inside = 1
                groups = list(map(self._group, self._groups, contexts, repeat(node)))
            rest = self._bits - 1 - level
            bit = 0
            if (node * 2 + 1 << rest) - (1 << self._bits) < self._size:
                bit = self._bit([group[inside] for group in groups], code >> rest & 1)
            node, inside = node * 2 + bit, inside * 2 + bit
        return node - (1 << self._bits)

    @staticmethod
    def _group(
        known: dict[tuple[int, int], list[_Counter]], context: int, node: int
    ) -> list[_Counter]:
        group = known.get((context, node))
        if group is None:
            group = [_Counter() for _ in range(8)]
            if len(known) < MAX_GROUPS - 1:
                known[context, node] = group
        return group

    def _bit(self, counters: list[_Counter], value: int) -> int:
        stretch = stretch_table()
        buckets = tuple(_bucket(counter.seen) for counter in counters)
        inputs = [stretch[each.one >> 4] if each.seen else 0 for each in counters]
        weights = self._weights.setdefault(buckets, _first_weights(buckets))
        mixed = sum(map(int.__mul__, weights, inputs)) >> 16
        one = squash(min(max(mixed, -REACH), REACH))
        value = self._coder.bit(one, value)
        error = (65536 if value else 0) - one
        for m, counter in enumerate(counters):
            weight = weights[m] + (inputs[m] * MIX_RATE * error >> 16)
            weights[m] = min(max(weight, -MAX_WEIGHT), MAX_WEIGHT)
            target = 65535 if value else 0
            counter.one += (target - counter.one) * RATES[counter.seen] >> 16
            counter.seen = min(counter.seen + 1, MAX_SEEN)
        return value
