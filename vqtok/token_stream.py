"""Token datasets as batches for torch: ranks, workers, and going on in the middle of an epoch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from vqtok.tokens.sequences.dataset import Item, TokenDataset

_STATE_VERSION = 1


class TokenStream(IterableDataset[dict[str, Tensor]]):
    """Iterable: the batches of this rank, from epoch to epoch, in an order that nothing changes.

    Step s of all ranks together takes the next ``ranks * batch_size`` sequences of the epochs, each
    rank its part; the same whatever the number of workers. Every sequence of an epoch comes exactly
    once over all ranks, and a step may reach into the next epoch. Use it as it is, or with workers
    as ``DataLoader(stream, batch_size=None, num_workers=4)``.

    A batch is a dict of tensors as :class:`vqtok.TokenDataset` has them, with the batch first.
    Iterating again goes on where the last batch was, or, after the last epoch, begins again. (In a
    DataLoader's workers, which read ahead, it begins where this iteration began.)

    Going on: ``state_dict()`` and ``load_state_dict()``, here or through torchdata's
    ``StatefulDataLoader``. With torch's own ``DataLoader`` and workers, whose streams are copies,
    count the batches that you took: ``state_dict(batches=n)``. Ranks, workers and batch size may
    differ when it goes on.

    Args:
        dataset: the sequences, from its current epoch on.
        batch_size: sequences of a batch of one rank.
        epochs: how many; None for endless. At the end of the last one, what ranks lack for a whole
            step is padding, or, if ``drop_last``, that step is left out: all ranks have the same
            number of batches.
        drop_last: see ``epochs``.
        rank, ranks: by default those of torch.distributed, or of torchrun's variables.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        dataset: TokenDataset,
        batch_size: int,
        *,
        epochs: int | None = None,
        drop_last: bool = False,
        rank: int | None = None,
        ranks: int | None = None,
    ) -> None:
        super().__init__()
        own = _process() if rank is None or ranks is None else (0, 1)
        self.rank = own[0] if rank is None else rank
        self.ranks = own[1] if ranks is None else ranks
        if batch_size < 1 or not 0 <= self.rank < self.ranks or (epochs is not None and epochs < 1):
            raise ValueError(
                f"batch_size {batch_size}, rank {self.rank} of {self.ranks} and epochs {epochs}: "
                "sizes must be at least 1 and the rank below their number"
            )
        self.dataset = dataset
        self.batch_size = batch_size
        self.epochs = epochs
        self.drop_last = drop_last
        self._sequence = 0  # where this iteration began, in sequences since the first epoch
        self._batches = 0  # taken from it since then, by this object
        self._worker: list[int] | None = None  # that it is in, with their number
        self._begun: int | None = None  # batches when a worker's iteration began that is not over

    def __len__(self) -> int:
        """Batches of this rank from the first epoch to the last; TypeError if endless."""
        if self.epochs is None:
            raise TypeError("an endless stream has no length")
        first, step = self.dataset.epoch, self.ranks * self.batch_size
        total = sum(self.dataset.sequences(first + epoch) for epoch in range(self.epochs))
        return total // step if self.drop_last else -(-total // step)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        here, step = _worker(), self.ranks * self.batch_size
        if here != self._worker:  # what was taken before workers got copies of this
            self._sequence += self._batches * step
            self._batches, self._worker = 0, here
        elif self._begun is not None:  # it was left; what a worker read ahead nobody has seen
            self._batches = self._begun
        self._begun = None if here is None else self._batches
        worker, workers = here or (0, 1)
        while True:
            number = worker + self._batches * workers
            first = self._sequence + number * step
            batch = self._batch(first + self.rank * self.batch_size, first, first + step)
            if batch is None:
                break
            self._batches += 1
            yield batch
        self._sequence = self._batches = 0
        self._begun = None

    def state_dict(self, batches: int | None = None) -> dict[str, Any]:
        """Where the stream is, as JSON data.

        Args:
            batches: how many were taken since it was made or loaded; by default those that this
                very object has given.

        Raises ValueError for fewer than none.
        """
        if batches is not None and batches < 0:
            raise ValueError(f"batches must not be negative, got {batches}")
        return {
            "version": _STATE_VERSION,
            "dataset": self.dataset.fingerprint,
            "epoch": self.dataset.epoch,
            "step": self.ranks * self.batch_size,
            "sequence": self._sequence,
            "batches": self._batches if batches is None else batches,
            "worker": self._worker,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state.

        Raises ValueError if it is of other data or settings, or of a worker that this is not.
        """
        whole = isinstance(state, dict) and state.keys() >= self.state_dict().keys()
        if not whole or state["version"] != _STATE_VERSION:
            raise ValueError(f"not the state of a TokenStream: {state!r:.80}")
        for name in ("epoch", "step", "sequence", "batches"):
            if type(state[name]) is not int or state[name] < 0:
                raise ValueError(f"not the state of a TokenStream: {name} is {state[name]!r}")
        if state["dataset"] != self.dataset.fingerprint:
            raise ValueError("the state is of a stream with other data, lengths, packing or seed")
        here = _worker()
        if state["worker"] is None:
            self._sequence = state["sequence"] + state["batches"] * state["step"]
            self._batches = 0
        elif state["worker"] == here and state["step"] == self.ranks * self.batch_size:
            self._sequence, self._batches = state["sequence"], state["batches"]
        else:
            raise ValueError(
                f"the state is of worker {state['worker'][0]} of {state['worker'][1]} and of steps "
                f"of {state['step']} sequences: go on with as many"
            )
        self._worker, self._begun = here, None
        self.dataset.set_epoch(state["epoch"])

    def _batch(self, first: int, begin: int, end: int) -> dict[str, Tensor] | None:
        """Sequences from ``first`` on; None if the step of sequences [begin, end) is not there."""
        if self._locate(end - 1 if self.drop_last else begin) is None:
            return None
        items: list[Item] = []
        for sequence in range(first, first + self.batch_size):
            place = self._locate(sequence)
            items.append(self.dataset.padding() if place is None else self.dataset.read(*place))
        return {
            name: torch.from_numpy(np.stack([item[name] for item in items])) for name in items[0]
        }

    def _locate(self, sequence: int) -> tuple[int, int] | None:
        """(epoch, index) of a sequence of the stream, None after the last epoch."""
        epoch = self.dataset.epoch
        while True:
            if self.epochs is not None and epoch >= self.dataset.epoch + self.epochs:
                return None
            count = self.dataset.sequences(epoch)
            if sequence < count:
                return epoch, sequence
            sequence -= count
            epoch += 1


def _worker() -> list[int] | None:
    """[number, workers] of the DataLoader's worker that this process is."""
    info = get_worker_info()
    return None if info is None else [info.id, info.num_workers]


def _process() -> tuple[int, int]:
    """(rank, ranks) of this process."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
