"""Codes of many samples with borders around them, from which contexts are gathered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqtok.training.prior.plan import Context

MARGINS = (8, 3)
"""Furthest offsets of a context, along either axis."""


class Grids:
    """All codes of a set of samples, each position with its surroundings at hand.

    Args:
        samples: integer [A, B, Q] each (image: rows, columns; sound: frames, channels), any A and
            B; each code in [0, K_q).
        codebook_sizes: K of each codebook; the code K stands for what lies outside a sample.

    Attributes:
        samples: how many.
    """

    def __init__(
        self, samples: Iterable[NDArray[np.integer]], codebook_sizes: Sequence[int]
    ) -> None:
        outside = np.array(codebook_sizes, np.int32)
        flat: list[NDArray[np.int32]] = []
        positions: list[NDArray[np.int64]] = []
        strides: list[NDArray[np.int32]] = []
        start = 0
        for codes in samples:
            rows, columns, depth = codes.shape
            above, left = MARGINS
            shape = (rows + 2 * above, columns + 2 * left, depth)
            padded = np.broadcast_to(outside, shape).copy()
            padded[above : above + rows, left : left + columns] = codes
            inside = np.arange(above, above + rows)[:, None] * shape[1]
            inside = inside + np.arange(left, left + columns)
            flat.append(padded.reshape(-1, depth))
            positions.append(start + inside.ravel())
            strides.append(np.full(inside.size, shape[1], np.int32))
            start += shape[0] * shape[1]
        self.samples = len(flat)
        self._flat = torch.from_numpy(_joined(flat, (0, len(outside)), np.int32))
        self._positions = torch.from_numpy(_joined(positions, (0,), np.int64))
        self._strides = torch.from_numpy(_joined(strides, (0,), np.int32))

    def __len__(self) -> int:
        """Positions, of all samples together."""
        return len(self._positions)

    def codes(self, index: Tensor, q: int) -> Tensor:
        """int64 [B], the codes of codebook ``q`` at the positions of ``index``."""
        return self._flat[self._positions[index], q].long()

    def around(self, index: Tensor, contexts: Sequence[Context]) -> Tensor:
        """int64 [B, S], the codes that the contexts of these positions hold."""
        codebooks, da, db = torch.tensor(contexts).T
        places = self._positions[index][:, None] + da * self._strides[index][:, None] + db
        return self._flat[places, codebooks].long()

    def counts(self, q: int, codebook_size: int) -> Tensor:
        """int64 [K], how often each code of codebook ``q`` occurs."""
        return torch.bincount(self._flat[self._positions, q].long(), minlength=codebook_size)


def _joined(parts: Sequence[NDArray[Any]], empty: tuple[int, ...], dtype: type) -> NDArray[Any]:
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(empty, dtype)
