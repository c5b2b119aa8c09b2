"""Convolutional encoder and decoder for images.

Every operation is local (no attention, no statistics over the image), so a stack takes any size,
and a large image can be coded in tiles that overlap by :attr:`ConvEncoder.context` pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel, [B, C, H, W] (Ba et al., 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(rearrange(x, "b c h w -> b h w c"))
        return rearrange(normed, "b h w c -> b c h w")


class ResidualBlock(nn.Module):
    """``x + conv3x3(silu(conv3x3(norm(x))))``; starts as the identity."""

    context = 2

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.expand = nn.Conv2d(channels, channels, 3, padding=1)
        self.activation = nn.SiLU()
        self.project = _zeros(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.project(self.activation(self.expand(self.norm(x))))
        return x + residual


class Stack(nn.Module):
    """What an encoder and a decoder of images have in common.

    Attributes:
        config: JSON-able; rebuilds the stack.
        dim: D, the dimension of a latent.
        downsample: pixels per latent, each way.
        context: pixels beyond its own block that a latent sees (encoder), or around a block of
            pixels that its latents come from (decoder), each side; None if that is everything.
    """

    config: dict[str, Any]
    dim: int
    downsample: int
    context: int | None


class ConvEncoder(Stack):
    """Images to a grid of latents.

    Pixels are first folded into channels (patch x patch), so no layer runs at full resolution;
    every further stage halves the resolution. Beside the layers runs a linear transform of each
    block of pixels, which starts as the cosine transform while the layers start at zero: training
    begins as a classic transform coder, and need not discover its basis function by function.

    Args:
        channels: width of each stage, finest first.
        blocks: residual blocks of each stage.
        patch: side of the pixel blocks folded into channels.
        dim: D, the dimension of a latent.
        in_channels: image channels C.
    """

    def __init__(
        self,
        channels: Sequence[int],
        blocks: Sequence[int],
        *,
        patch: int = 4,
        dim: int = 16,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.config = _stack_config(channels, blocks, patch, dim, in_channels)
        self.dim = dim
        self.downsample = patch * 2 ** (len(channels) - 1)
        layers: list[nn.Module] = [
            nn.PixelUnshuffle(patch),
            nn.Conv2d(in_channels * patch**2, channels[0], 3, padding=1),
        ]
        self.context = patch
        for stage, (width, count) in enumerate(zip(channels, blocks, strict=True)):
            if stage:
                layers.append(nn.Conv2d(channels[stage - 1], width, 2, stride=2))
            layers += [ResidualBlock(width) for _ in range(count)]
            self.context += patch * 2**stage * ResidualBlock.context * count
        layers += [ChannelNorm(channels[-1]), _zeros(nn.Conv2d(channels[-1], dim, 1))]
        self.layers = nn.Sequential(*layers)
        self.transform = nn.Conv2d(in_channels * self.downsample**2, dim, 1, bias=False)
        with torch.no_grad():
            basis = dct_basis(dim, in_channels, self.downsample)
            self.transform.weight.copy_(basis[:, :, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """float [B, C, H, W], H and W multiples of ``downsample`` -> [B, h, w, D]."""
        blocks = F.pixel_unshuffle(images, self.downsample)
        latents: Tensor = self.layers(images) + self.transform(blocks)
        return rearrange(latents, "b d h w -> b h w d")


class ConvDecoder(Stack):
    """A grid of latents to images: the mirror of :class:`ConvEncoder`.

    Args:
        channels: width of each stage, finest first (as for the encoder).
        blocks: residual blocks of each stage, finest first.
        patch: side of the pixel blocks that the last layer unfolds.
        dim: D, the dimension of a latent.
        in_channels: image channels C.
    """

    def __init__(
        self,
        channels: Sequence[int],
        blocks: Sequence[int],
        *,
        patch: int = 4,
        dim: int = 16,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.config = _stack_config(channels, blocks, patch, dim, in_channels)
        self.dim = dim
        self.downsample = patch * 2 ** (len(channels) - 1)
        layers: list[nn.Module] = [nn.Conv2d(dim, channels[-1], 3, padding=1)]
        self.context = self.downsample
        for stage in reversed(range(len(channels))):
            layers += [ResidualBlock(channels[stage]) for _ in range(blocks[stage])]
            self.context += patch * 2**stage * ResidualBlock.context * blocks[stage]
            if stage:
                layers += [nn.Conv2d(channels[stage], 4 * channels[stage - 1], 1)]
                layers += [nn.PixelShuffle(2)]
        layers += [
            ChannelNorm(channels[0]),
            _zeros(nn.Conv2d(channels[0], in_channels * patch**2, 3, padding=1)),
            nn.PixelShuffle(patch),
        ]
        self.context += patch
        self.layers = nn.Sequential(*layers)
        self.transform = nn.Conv2d(dim, in_channels * self.downsample**2, 1, bias=False)
        with torch.no_grad():
            basis = dct_basis(dim, in_channels, self.downsample)
            self.transform.weight.copy_(basis.T[:, :, None, None])

    def forward(self, latents: Tensor) -> Tensor:
        """[B, h, w, D] -> float [B, C, H, W], H = h * ``downsample``."""
        latents = rearrange(latents, "b h w d -> b d h w")
        blocks = F.pixel_shuffle(self.transform(latents), self.downsample)
        images: Tensor = self.layers(latents) + blocks
        return images


def dct_basis(dim: int, channels: int, side: int) -> Tensor:
    """The coarsest functions of the cosine transform (DCT-II) of a block of pixels.

    Args:
        dim: how many functions, at most ``channels * side**2``.
        channels: image channels, transformed too: for RGB, the first function is the grey value
            and the others are two colour differences.
        side: of the block, in pixels.

    Returns:
        float32 [dim, channels * side**2], orthonormal rows, in the channel order of
        ``pixel_unshuffle``. Coarse before fine; a colour difference counts as 2.5 steps finer
        than grey.
    """
    across_channels, along_side = _dct_matrix(channels), _dct_matrix(side)
    order = sorted(
        (row + column + 2.5 * (channel > 0), channel, row, column)
        for channel in range(channels)
        for row in range(side)
        for column in range(side)
    )
    functions = [
        torch.einsum(
            "c,y,x->cyx", across_channels[channel], along_side[row], along_side[column]
        ).flatten()
        for _, channel, row, column in order[:dim]
    ]
    return torch.stack(functions).float()


def _dct_matrix(size: int) -> Tensor:
    """The orthonormal DCT-II, float64 [frequency, place]."""
    frequency = torch.arange(size, dtype=torch.float64)[:, None]
    place = torch.arange(size, dtype=torch.float64)[None, :]
    matrix = torch.cos(math.pi / size * (place + 0.5) * frequency) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix


def _zeros(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer, starting as zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _stack_config(
    channels: Sequence[int], blocks: Sequence[int], patch: int, dim: int, in_channels: int
) -> dict[str, Any]:
    if not channels or len(channels) != len(blocks):
        raise ValueError(f"channels and blocks must pair up, not {channels} and {blocks}")
    if min(*channels, patch, dim, in_channels) < 1 or min(blocks) < 0:
        raise ValueError("channels, patch, dim and in_channels must be positive")
    return {
        "type": "conv",
        "channels": list(channels),
        "blocks": list(blocks),
        "patch": patch,
        "dim": dim,
        "in_channels": in_channels,
    }
