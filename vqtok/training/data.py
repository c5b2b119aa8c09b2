"""What the trainer asks of its data: batches that are a pure function of their number.

That is what makes a resumed run bit-exact: there is no generator state to restore.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

Batch = TypeVar("Batch")

_PREFETCHED_BATCHES = 4


class TrainingData(Protocol):
    """Batches by number.

    Attributes:
        batch_size: samples in a batch.
        skipped: one line for each source that was left out, and why.
    """

    batch_size: int
    skipped: list[str]

    def __len__(self) -> int:
        """How many sources (files, or rows of a table) there are."""

    @property
    def digest(self) -> str:
        """SHA-256 of what the batches depend on: a run resumes only with the same."""

    def batch(self, index: int) -> Any:
        """Batch number ``index``, any from 0: always the same one."""

    def batches(self, start: int, stop: int, stride: int = 1) -> Iterator[Any]:
        """The batches of range(start, stop, stride), prepared ahead where that helps."""


def prefetch(batch: Callable[[int], Batch], indices: Sequence[int]) -> Iterator[Batch]:
    """``batch(index)`` for each index in turn, a few of them prepared ahead by a thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        pending: list[Future[Batch]] = []
        try:
            for place in range(len(indices)):
                while len(pending) < min(_PREFETCHED_BATCHES, len(indices) - place):
                    pending.append(pool.submit(batch, indices[place + len(pending)]))
                yield pending.pop(0).result()
        finally:
            for future in pending:
                future.cancel()
