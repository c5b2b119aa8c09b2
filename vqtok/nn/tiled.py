"""Tiles of one size through a network that is made for them."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from vqtok.nn.conv import Stack


class TiledStack(Stack):
    """What encoder and decoder have in common.

    Args:
        layer: the network of a tile.
        side: latents of a tile, each way. A whole tile is one latent here.
    """

    context = 0

    def __init__(self, layer: Stack, side: int) -> None:
        super().__init__()
        if side < 1:
            raise ValueError(f"side must be positive, not {side}")
        self.config = {"type": "tiled", "layer": layer.config, "side": side}
        self.layer = layer
        self.side = side
        self.dim = side**2 * layer.dim
        self.downsample = side * layer.downsample


class TiledEncoder(TiledStack):
    """Images to a grid with one latent a tile; see :class:`TiledStack`."""

    def forward(self, images: Tensor) -> Tensor:
        """float [B, C, H, W], -1..1, H and W multiples of ``downsample`` -> [B, h, w, D]."""
        size = self.downsample
        tiles = rearrange(images, "b c (i h) (j w) -> (b i j) c h w", h=size, w=size)
        # One at a time: what a tile becomes does not depend on how many there are.
        maps = torch.cat([self.layer(tile) for tile in torch.split(tiles, 1)])
        rows = images.shape[2] // size
        return rearrange(maps, "(b i j) h w d -> b i j (h w d)", b=len(images), i=rows)


class TiledDecoder(TiledStack):
    """A grid with one latent a tile to images: the mirror of :class:`TiledEncoder`."""

    def forward(self, latents: Tensor) -> Tensor:
        """[B, h, w, D] -> float [B, C, H, W], H = h * ``downsample``."""
        side = self.side
        maps = rearrange(latents, "b i j (h w d) -> (b i j) h w d", h=side, w=side)
        tiles = torch.cat([self.layer(tile) for tile in torch.split(maps, 1)])
        rows = latents.shape[1]
        return rearrange(tiles, "(b i j) c h w -> b c (i h) (j w)", b=len(latents), i=rows)
