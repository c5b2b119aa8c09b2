"""Normalisation over channels and time of [B, C, T] whose places lie one after the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

PIECE = 1 << 15
"""Numbers whose sums float32 holds exactly enough."""


class Moments:
    """Mean and variance of many numbers, a piece at a time (Chan et al., 1979), without a copy."""

    def __init__(self) -> None:
        self._counts: list[int] = []
        self._means: list[Tensor] = []
        self._spreads: list[Tensor] = []

    def add(self, numbers: Tensor) -> None:
        """Of float32 [...]."""
        for piece in torch.split(numbers.flatten(), PIECE):
            mean = piece.sum().double() / len(piece)
            self._counts.append(len(piece))
            self._means.append(mean)
            self._spreads.append(torch.linalg.vector_norm(piece - mean.to(piece.dtype)))

    def mean_and_variance(self) -> tuple[Tensor, Tensor]:
        """float64 [] each, of all that was added."""
        means = torch.stack(self._means)
        counts = means.new_tensor(self._counts)
        mean = (counts * means).sum() / counts.sum()
        squares = torch.stack(self._spreads).double().square() + counts * (means - mean).square()
        return mean, squares.sum() / counts.sum()


class TimeNorm(nn.GroupNorm):
    """``nn.GroupNorm`` of [B, C, T] in one group; without gradients, in place."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return super().forward(x)
        for rows in x.transpose(1, 2):
            moments = Moments()
            moments.add(rows)
            scale, shift = self.line(moments)
            torch.addcmul(shift, rows, scale, out=rows)
        return x

    def line(self, moments: Moments) -> tuple[Tensor, Tensor]:
        """Scale and shift [C] that normalise numbers with these moments."""
        mean, variance = moments.mean_and_variance()
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return scale.to(self.weight.dtype), shift.to(self.weight.dtype)
