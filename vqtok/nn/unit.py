"""Networks that take and give pixels of 0..1."""

from __future__ import annotations

from torch import Tensor

from vqtok.nn.conv import Stack


class UnitStack(Stack):
    """What encoder and decoder have in common.

    Args:
        layer: the network.
    """

    def __init__(self, layer: Stack) -> None:
        super().__init__()
        self.config = {"type": "unit", "layer": layer.config}
        self.layer = layer
        self.dim = layer.dim
        self.downsample = layer.downsample
        self.context = layer.context


class UnitEncoder(UnitStack):
    """Images to a grid of latents; see :class:`UnitStack`."""

    def forward(self, images: Tensor) -> Tensor:
        """float [B, C, H, W], -1..1, H and W multiples of ``downsample`` -> [B, h, w, D]."""
        latents: Tensor = self.layer((images + 1) / 2)
        return latents


class UnitDecoder(UnitStack):
    """A grid of latents to images: the mirror of :class:`UnitEncoder`."""

    def forward(self, latents: Tensor) -> Tensor:
        """[B, h, w, D] -> float [B, C, H, W], -1..1."""
        images: Tensor = self.layer(latents)
        return images * 2 - 1
