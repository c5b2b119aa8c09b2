"""Data to the numbers that networks like, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Scaling(nn.Module, ABC):
    """``(data - shift) / scale``, learned from data before training and kept with the weights.

    Args:
        shape: of shift and scale, broadcast against a sample: [F] for the features of a table,
            [C, 1, 1] for the channels of images.

    Attributes:
        config: JSON-able; rebuilds the scaling.
    """

    config: dict[str, Any]
    shift: Tensor
    scale: Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.register_buffer("shift", torch.zeros(self.shape))
        self.register_buffer("scale", torch.ones(self.shape))

    def forward(self, data: Tensor) -> Tensor:
        """Any real dtype [B, ...] to float32 (to the model's, if that is wider)."""
        return (data.to(self.shift.dtype) - self.shift) / self.scale

    def inverse(self, scaled: Tensor) -> Tensor:
        """float [B, ...] back to data, of the same dtype."""
        return scaled.to(self.shift.dtype) * self.scale + self.shift

    def fit(self, data: Tensor, mask: Tensor | None = None) -> None:
        """Learn from data [B, ...]; with a mask (bool [B, T] of [B, T, C]) from what it keeps."""
        rows = data.double() if mask is None else data[mask].double()
        # Everything but the axes that the shape keeps apart: those of size 1 are joined.
        rows = rows.reshape(-1, *rows.shape[rows.ndim - len(self.shape) :])
        axes = [0, *(axis + 1 for axis, size in enumerate(self.shape) if size == 1)]
        shift, scale = self._measure(rows, axes)
        self.shift.copy_(shift.view(self.shape))
        # A constant feature has nothing to scale.
        scale = torch.where(scale > 1e-12 * shift.abs().clamp_min(1e-30), scale, 1.0)
        self.scale.copy_(scale.view(self.shape))

    @abstractmethod
    def _measure(self, rows: Tensor, axes: list[int]) -> tuple[Tensor, Tensor]:
        """Shift and scale of float64 rows, over the axes."""
