"""Batches of sequences: series of real values, or symbols such as the bytes of a text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vqtok.errors import UsageError
from vqtok.training.data import prefetch
from vqtok.training.task import Inputs


class SequenceData:
    """Sequences of at most ``length`` steps; of longer ones, windows at random places.

    Args:
        sequences: float [T, C] each, of the same C, or int [T] each (symbols, without the one
            that ends a sequence); T >= 1.
        length: steps of a window.
        batch_size: windows in a batch.
        seed: of all choices.
        end: the symbol that ends a sequence, put after each window (symbols only).
        vary: half of the windows of a longer sequence are cut to a random length, so that a model
            that is to code pieces of any length has seen them.

    Raises:
        UsageError: there are no sequences.
    """

    def __init__(
        self,
        sequences: Sequence[npt.NDArray[Any]],
        *,
        length: int,
        batch_size: int,
        seed: int = 0,
        end: int | None = None,
        vary: bool = False,
    ) -> None:
        if not len(sequences) or length < 1 or batch_size < 1:
            raise UsageError(
                f"sequences need at least one, a length and a batch size of at least 1, "
                f"not {len(sequences)}, {length} and {batch_size}"
            )
        self.sequences = sequences
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.end = end
        self.vary = vary
        self.skipped: list[str] = []
        windows = [max(1, len(sequence) - length + 1) for sequence in sequences]
        self._first_windows = np.cumsum([0, *windows])

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def digest(self) -> str:
        """SHA-256 of the sequences and of how windows are chosen."""
        facts = [self.length, self.batch_size, self.seed, self.end, self.vary]
        digest = hashlib.sha256(json.dumps(facts).encode())
        for sequence in self.sequences:
            digest.update(f"{sequence.dtype} {sequence.shape}".encode())
            digest.update(np.ascontiguousarray(sequence).tobytes())
        return digest.hexdigest()

    def batch(self, index: int) -> Inputs:
        """The windows of batch ``index``, padded to the longest."""
        generator = np.random.default_rng([self.seed, index])
        return padded([self._window(generator) for _ in range(self.batch_size)])

    def batches(self, start: int, stop: int, stride: int = 1) -> Iterator[Inputs]:
        """The batches of range(start, stop, stride), prepared ahead by a background thread."""
        return prefetch(self.batch, range(start, stop, stride))

    def _window(self, generator: np.random.Generator) -> npt.NDArray[Any]:
        place = int(generator.integers(self._first_windows[-1]))
        which = int(np.searchsorted(self._first_windows, place, side="right")) - 1
        sequence = self.sequences[which]
        start, length = place - int(self._first_windows[which]), self.length
        if self.vary and len(sequence) > length and generator.random() < 0.5:
            length = int(generator.integers(1, length + 1))
        window = sequence[start : start + length]
        return window if self.end is None else np.append(window, self.end)


def padded(sequences: Sequence[npt.NDArray[Any]]) -> Inputs:
    """A batch of sequences [T] or [T, C], padded with 0; integers become int64, others float32.

    The mask is None if all are of one length.
    """
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    shape = (len(sequences), int(lengths.max()), *sequences[0].shape[1:])
    integers = sequences[0].dtype.kind in "iu"
    values = torch.zeros(shape, dtype=torch.int64 if integers else torch.float32)
    for row, sequence in zip(values, sequences, strict=True):
        row[: len(sequence)] = torch.from_numpy(np.ascontiguousarray(sequence))
    if bool((lengths == lengths[0]).all()):
        return Inputs(values)
    return Inputs(values, torch.arange(shape[1]) < lengths[:, None])
