"""Training on arrays: tables, small images, anything with samples of one shape in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vqtok.autoencoders.verbs import as_tensor
from vqtok.errors import UsageError


class Arrays:
    """Batches of a tensor, in a new random order each epoch.

    Args:
        samples: [N, ...], N at least 1.
        batch_size: samples in a batch, at most N.
        seed: of the orders.
    """

    def __init__(self, samples: Tensor, *, batch_size: int, seed: int = 0) -> None:
        if samples.ndim < 2 or len(samples) < 1 or batch_size < 1:
            raise UsageError(
                f"data must be [N, ...] with N >= 1 and a batch size of at least 1, "
                f"not {list(samples.shape)} and {batch_size}"
            )
        self.samples = samples
        self.batch_size = min(batch_size, len(samples))
        self.seed = seed
        self.skipped: list[str] = []
        self._order = lru_cache(maxsize=2)(self._new_order)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def digest(self) -> str:
        """SHA-256 of the samples and of how they are drawn."""
        facts = [list(self.samples.shape), str(self.samples.dtype), self.batch_size, self.seed]
        digest = hashlib.sha256(json.dumps(facts).encode())
        digest.update(self.samples.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def batch(self, index: int) -> Tensor:
        """[batch_size, ...]; a batch may end one epoch and begin the next."""
        epoch, first = divmod(index * self.batch_size, len(self))
        last = first + self.batch_size
        chosen = self._order(epoch)[first:last]
        if last > len(self):
            chosen = np.append(chosen, self._order(epoch + 1)[: last - len(self)])
        return self.samples[torch.from_numpy(chosen)]

    def batches(self, start: int, stop: int, stride: int = 1) -> Iterator[Tensor]:
        """The batches of range(start, stop, stride)."""
        return map(self.batch, range(start, stop, stride))

    def _new_order(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self))


def as_samples(data: object, name: str = "data") -> Tensor:
    """A numpy array or tensor [N, ...] as a tensor: float32, uint8, or int64.

    Raises:
        UsageError: it is neither, has no samples, or holds NaN or Inf.
    """
    if not isinstance(data, Tensor):
        array = np.asarray(data)
        if array.dtype.kind not in "fiub":
            raise UsageError(f"{name} must be numbers, not {array.dtype}")
        data = as_tensor(array)
    if data.ndim < 2 or data.numel() == 0:
        raise UsageError(f"{name} must be [samples, ...], not {list(data.shape)}")
    if data.is_floating_point():
        data = data.float()
        wrong = (~data.isfinite()).nonzero()
        if len(wrong):
            place = ", ".join(map(str, wrong[0].tolist()))
            raise UsageError(
                f"{name} [{place}] is {float(data[tuple(wrong[0])])} (counted from 0): fill or "
                f"drop NaN and Inf first"
            )
        return data
    return data if data.dtype == torch.uint8 else data.long()
