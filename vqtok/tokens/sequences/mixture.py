"""Which sample of which source comes when: exact over epochs, computed for any place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqtok.tokens.sequences.shuffling import Shuffle


@dataclass(frozen=True)
class Visits:
    """Samples to visit: ``source``, ``sample`` (of the source) and ``turn``, how many times the
    sample has been visited before; int64 [m] each.
    """

    source: NDArray[np.int64]
    sample: NDArray[np.int64]
    turn: NDArray[np.int64]


class Mixture:
    """The order of epochs over several sources.

    An epoch has ``round(repeat * count)`` visits of each source. Source by source, visits go
    through a fixed random order of its samples, and the next epoch goes on where the last one
    stopped: after any number of epochs, no sample was visited two times more than another of its
    source. Within an epoch all visits are shuffled together, anew in each.

    Args:
        counts: samples of each source.
        repeats: visits per sample and epoch, each > 0.
        seed: of all random orders.
        shuffle: False for samples in the order of the sources.
    """

    def __init__(
        self, counts: Sequence[int], repeats: Sequence[float], seed: int, shuffle: bool
    ) -> None:
        self.counts = np.array(counts, np.int64)
        self.visits = np.array(
            [round(count * repeat) for count, repeat in zip(counts, repeats, strict=True)], np.int64
        )
        self._ends = np.cumsum(self.visits)
        self._seed, self._shuffle = seed, shuffle
        self._within = [Shuffle(count, (seed, 1, k)) for k, count in enumerate(counts)]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __call__(self, epoch: int, places: NDArray[np.int64]) -> Visits:
        """The visits at ``places`` int64 [m] of an epoch, each in [0, len)."""
        slots = places
        if self._shuffle:
            slots = Shuffle(len(self), (self._seed, 0, epoch))(places)
        source = np.searchsorted(self._ends, slots, side="right")
        visits, counts = self.visits[source], self.counts[source]
        running = slots - (self._ends[source] - visits) + epoch * visits
        turn, sample = np.divmod(running, counts)
        if self._shuffle:
            for k, within in enumerate(self._within):
                mine = source == k
                sample[mine] = within(sample[mine])
        return Visits(source, sample, turn)
