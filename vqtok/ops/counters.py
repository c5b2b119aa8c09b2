"""Counters of bits under contexts, in plain Python: what csrc/cpu/counters.h does, with the same
results. FORMAT.md of vqtok.tokens defines them.
"""

from __future__ import annotations

from functools import cache
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

MAX_GROUPS = 1 << 18
MAX_SEEN = 60
REACH = 2047
RATES = tuple(131072 // (2 * seen + 3) for seen in range(MAX_SEEN + 1))
MAX_WEIGHT = 1 << 20
SQUASH = (
    *(22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625, 24743),
    *(32768, 40793, 47911, 53581, 57724, 60565, 62428, 63615, 64357, 64816, 65097, 65269),
    *(65374, 65438, 65476, 65500, 65514),
)


def squash(x: int) -> int:
    """65536 / (1 + exp(-x / 256)) as the format has it, x limited to what it reaches."""
    x = min(max(x, -REACH), REACH)
    low, high = SQUASH[(x + 2048) >> 7], SQUASH[((x + 2048) >> 7) + 1]
    return low + ((high - low) * ((x + 2048) & 127) >> 7)


def stretch(probability: int) -> int:
    """The inverse, of a probability in [0, 65536)."""
    return stretch_table()[probability >> 4]


@cache
def stretch_table() -> tuple[int, ...]:
    """For p in [0, 4096) the least x whose squash is at least 16 p + 8, REACH if there is none."""
    table, x = [], -REACH
    for p in range(4096):
        while x < REACH and squash(x) < 16 * p + 8:
            x += 1
        table.append(x)
    return tuple(table)


def limited(weight: int) -> int:
    """A weight of an input, kept in range."""
    return min(max(weight, -MAX_WEIGHT), MAX_WEIGHT)


def contexts_at(planes: NDArray[np.uint32], row: int, column: int) -> list[int]:
    """What a code of the last of the planes [q + 1, rows, columns] is predicted from."""
    here, columns = planes[-1], planes.shape[2]
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
    return contexts


class Counter:
    """A probability of 1, in 2**-16, and the bits seen."""

    __slots__ = ("one", "seen")

    def __init__(self) -> None:
        self.one, self.seen = 32768, 0

    @property
    def input(self) -> int:
        return stretch(self.one) if self.seen else 0

    def learn(self, bit: int) -> None:
        target = 65535 if bit else 0
        self.one += (target - self.one) * RATES[self.seen] >> 16
        self.seen = min(self.seen + 1, MAX_SEEN)


class Counters:
    """Those of all models, for the bits of a code of plane q one after the other."""

    def __init__(self, q: int) -> None:
        self.models = 5 if q > 1 else 4
        self._groups: list[dict[tuple[int, int], list[Counter]]] = [{} for _ in range(self.models)]

    def begin(self, contexts: list[int]) -> None:
        self._contexts = contexts
        self.node, self._inside, self._level = 1, 1, 0

    def next(self) -> list[Counter]:
        """The counters of the next bit."""
        if self._level % 3 == 0:
            self._inside = 1
            self._found = list(map(self._group, self._groups, self._contexts, repeat(self.node)))
        self._level += 1
        return [group[self._inside] for group in self._found]

    def move(self, bit: int) -> None:
        """Notes the bit, once next() was there."""
        self.node, self._inside = self.node * 2 + bit, self._inside * 2 + bit

    @staticmethod
    def _group(
        known: dict[tuple[int, int], list[Counter]], context: int, node: int
    ) -> list[Counter]:
        group = known.get((context, node))
        if group is None:
            group = [Counter() for _ in range(8)]
            if len(known) < MAX_GROUPS - 1:
                known[context, node] = group
        return group
