"""Convolutions for small images of one size, even or odd (28x28, 32x32, 17x23)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vqtok.nn.conv import ChannelNorm, ResidualBlock, Stack


class GridEncoder(Stack):
    """Images to a grid of latents; each stage halves both sides, rounding up.

    Args:
        shape: (C, H, W) of an image.
        channels: width of each stage.
        dim: D, the dimension of a latent.
        blocks: residual blocks of each stage.
    """

    def __init__(
        self, shape: Sequence[int], channels: Sequence[int], dim: int, *, blocks: int = 1
    ) -> None:
        super().__init__()
        self.config = _config("grid", shape, channels, dim, blocks)
        self.shape = tuple(shape)
        self.dim = dim
        layers: list[nn.Module] = []
        for before, width in zip([shape[0], *channels], channels, strict=False):
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1)]
            layers += [ResidualBlock(width) for _ in range(blocks)]
        layers += [ChannelNorm(channels[-1]), nn.SiLU(), nn.Conv2d(channels[-1], dim, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """float [B, C, H, W] -> [B, h, w, D]."""
        if tuple(images.shape[1:]) != self.shape:
            raise ValueError(
                f"images must have shape {list(self.shape)}, not {list(images.shape[1:])}"
            )
        latents: Tensor = self.layers(images)
        return rearrange(latents, "b d h w -> b h w d")


class GridDecoder(Stack):
    """A grid of latents to images: resize and convolve, which leaves no checkerboard (Odena et
    al. 2016).

    Args:
        shape: (C, H, W) of an image.
        channels: width of each stage, in the encoder's order.
        dim: D, the dimension of a latent.
        blocks: residual blocks of each stage.
    """

    def __init__(
        self, shape: Sequence[int], channels: Sequence[int], dim: int, *, blocks: int = 1
    ) -> None:
        super().__init__()
        self.config = _config("grid", shape, channels, dim, blocks)
        self.shape = tuple(shape)
        self.dim = dim
        self.sizes = grid_sizes(shape, len(channels))
        self.first = nn.Conv2d(dim, channels[-1], 1)
        self.stages = nn.ModuleList()
        for width, after in zip(channels[::-1], [*channels[-2::-1], channels[0]], strict=True):
            layers: list[nn.Module] = [ResidualBlock(width) for _ in range(blocks)]
            self.stages.append(nn.Sequential(*layers, nn.Conv2d(width, after, 3, padding=1)))
        self.last = nn.Sequential(
            ChannelNorm(channels[0]), nn.SiLU(), nn.Conv2d(channels[0], shape[0], 3, padding=1)
        )

    def forward(self, latents: Tensor) -> Tensor:
        """[B, h, w, D] -> float [B, C, H, W]."""
        x: Tensor = self.first(rearrange(latents, "b h w d -> b d h w"))
        for stage, size in zip(self.stages, self.sizes[-2::-1], strict=True):
            x = F.interpolate(stage(x), size=size, mode="nearest")
        images: Tensor = self.last(x)
        return images


class ImageEncoder(Stack):
    """Images to one latent vector each: a :class:`GridEncoder` and a linear layer over its grid.

    Args: as for :class:`GridEncoder`.
    """

    def __init__(
        self, shape: Sequence[int], channels: Sequence[int], dim: int, *, blocks: int = 1
    ) -> None:
        super().__init__()
        self.config = _config("image", shape, channels, dim, blocks)
        self.dim = dim
        self.grid = GridEncoder(shape, channels, channels[-1], blocks=blocks)
        height, width = grid_sizes(shape, len(channels))[-1]
        self.layer = nn.Linear(height * width * channels[-1], dim)

    def forward(self, images: Tensor) -> Tensor:
        """float [B, C, H, W] -> [B, D]."""
        latents: Tensor = self.layer(self.grid(images).flatten(1))
        return latents


class ImageDecoder(Stack):
    """One latent vector to an image: the mirror of :class:`ImageEncoder`.

    Args: as for :class:`GridDecoder`.
    """

    def __init__(
        self, shape: Sequence[int], channels: Sequence[int], dim: int, *, blocks: int = 1
    ) -> None:
        super().__init__()
        self.config = _config("image", shape, channels, dim, blocks)
        self.dim = dim
        self.coarse = (*grid_sizes(shape, len(channels))[-1], channels[-1])
        self.layer = nn.Linear(dim, self.coarse[0] * self.coarse[1] * self.coarse[2])
        self.grid = GridDecoder(shape, channels, channels[-1], blocks=blocks)

    def forward(self, latents: Tensor) -> Tensor:
        """[B, D] -> float [B, C, H, W]."""
        images: Tensor = self.grid(self.layer(latents).reshape(-1, *self.coarse))
        return images


def grid_sizes(shape: Sequence[int], stages: int) -> list[tuple[int, int]]:
    """(height, width) before and after each halving, rounded up."""
    sizes = [(int(shape[1]), int(shape[2]))]
    for _ in range(stages):
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes


def _config(
    kind: str, shape: Sequence[int], channels: Sequence[int], dim: int, blocks: int
) -> dict[str, Any]:
    if len(shape) != 3 or not channels or min(*shape, *channels, dim) < 1 or blocks < 0:
        raise ValueError(
            f"needs shape (C, H, W), at least one stage and positive sizes, "
            f"not shape {list(shape)}, channels {list(channels)}, dim {dim}, blocks {blocks}"
        )
    return {
        "type": kind,
        "shape": list(shape),
        "channels": list(channels),
        "dim": dim,
        "blocks": blocks,
    }
