"""Residual finite scalar quantization: a composition, no quantizer of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vqtok.quantizers.fsq import FSQ
from vqtok.quantizers.residual import ResidualQuantizer


class ClampedFSQ(FSQ):
    """The nearest point of an even grid over [-scale, scale]; latents outside are clamped.

    Unlike the bounds of :class:`FSQ` and IFSQ this one moves no latent inside the grid, so that
    what is left over is at most half a cell and a finer grid can take it up.

    Args:
        levels: as for :class:`FSQ`.
        scale: half the width of the grid in each dimension, positive.
    """

    kind = "clamped_fsq"

    def __init__(self, levels: Sequence[int], *, scale: Sequence[float]) -> None:
        super().__init__(levels)
        if len(scale) != self.dim or not all(size > 0 for size in scale):
            raise ValueError(f"scale must be {self.dim} positive numbers, not {list(scale)}")
        self.config["scale"] = [float(size) for size in scale]
        self.register_buffer("scale", torch.tensor(self.config["scale"]), persistent=False)
        self.scale: Tensor

    def _bound(self, rows: Tensor) -> Tensor:
        return self._unplace(torch.minimum(torch.maximum(rows, -self.scale), self.scale))

    def _place(self, position: Tensor) -> Tensor:
        half = (self.count - 1) / 2
        return (position + (self.middle - half)) / half * self.scale

    def _unplace(self, quantized: Tensor) -> Tensor:
        half = (self.count - 1) / 2
        return quantized / self.scale * half - (self.middle - half)


def residual_fsq(
    levels: Sequence[int], num_codebooks: int, *, dropout: float = 0.0
) -> ResidualQuantizer:
    """Grids, each as large as one cell of the grid before it.

    Latents belong in [-1, 1]; the commitment loss of the :class:`ResidualQuantizer` draws them
    there. Codebook q narrows every dimension down by a factor of L - 1.

    Args:
        levels: levels of each dimension, for every codebook.
        num_codebooks: Q.
        dropout: as for :class:`ResidualQuantizer`.
    """
    layers = [
        ClampedFSQ(levels, scale=[(count - 1.0) ** -index for count in levels])
        for index in range(num_codebooks)
    ]
    return ResidualQuantizer(layers, dropout=dropout)
