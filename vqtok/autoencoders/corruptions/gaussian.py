"""Normal noise on every value."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtok.autoencoders.corruptions.base import Corruption


class GaussianNoise(Corruption):
    """Adds normal noise.

    Args:
        scale: its standard deviation, in units of the (scaled) data.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        if not 0 <= scale < float("inf"):
            raise ValueError(f"scale must not be negative, not {scale}")
        self.config = {"type": "gaussian", "scale": scale}
        self.scale = scale

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.scale * torch.randn_like(inputs)
