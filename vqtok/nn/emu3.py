"""The encoder and decoder of Emu3's tokenizer (Wang et al., 2024, arXiv:2409.18869), for images.

VQGAN's layers; the decoder's normalisations are told the latents (MoVQ: Zheng et al., 2022,
arXiv:2209.09002). The published model is one of videos: it repeats an image four times, takes four
frames to one, and decodes one to four equal to the first. What that comes to for one image is here,
at a quarter of the work.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vqtok.nn.vqgan import Double, GridAttention, Sizes, VQGANEncoder, VQGANStack, group_norm


class StillBlock(nn.Module):
    """``x + conv(silu(norm(conv(silu(norm(x))))))``; the normalisations are constant."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        residual: Tensor = self.conv2(F.silu(self.norm2(hidden)))
        return x + residual


class TimeHalve(nn.Module):
    """Four equal frames, then two, to one.

    The first of two strided convolutions gives two frames: one that looks at nothing and the
    image, and one that looks at the image alone.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.early = nn.Conv2d(channels, channels, 3, padding=1)
        self.late = nn.Conv2d(channels, channels, 3, padding=1)
        self.both = nn.Conv2d(2 * channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        frames = torch.cat([F.silu(self.early(x)), F.silu(self.late(x))], dim=1)
        return F.silu(self.both(frames))


class Emu3Encoder(VQGANEncoder):
    """Images to a grid of latents; arguments as for :class:`VQGANStack`."""

    kind = "emu3"

    def _projection(self, sizes: Sizes) -> nn.Module:
        width = sizes.latent_channels
        blocks = [StillBlock(width) for _ in range(sizes.blocks)]
        return nn.Sequential(TimeHalve(width), *blocks, nn.Conv2d(width, sizes.dim, 1))


class SpatialNorm(nn.Module):
    """Group normalisation whose scale and shift at each place are linear maps of the latent."""

    def __init__(self, channels: int, dim: int, groups: int) -> None:
        super().__init__()
        self.norm = group_norm(channels, groups)
        self.scale = nn.Conv2d(dim, channels, 1)
        self.shift = nn.Conv2d(dim, channels, 1)

    def forward(self, x: Tensor, latents: Tensor) -> Tensor:
        # The maps first: a map of repeated latents is a repeated map.
        size = (int(x.shape[2]), int(x.shape[3]))
        scale = F.interpolate(self.scale(latents), size=size, mode="nearest")
        shift = F.interpolate(self.shift(latents), size=size, mode="nearest")
        normed: Tensor = self.norm(x)
        return normed * scale + shift


class ToldBlock(nn.Module):
    """A residual block that is told the latents."""

    def __init__(self, channels_in: int, channels_out: int, dim: int, groups: int) -> None:
        super().__init__()
        self.norm1 = SpatialNorm(channels_in, dim, groups)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = SpatialNorm(channels_out, dim, groups)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.shortcut = (
            nn.Identity()
            if channels_in == channels_out
            else nn.Conv2d(channels_in, channels_out, 1)
        )

    def forward(self, x: Tensor, latents: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x, latents), inplace=True))
        hidden = self.norm2(hidden, latents)
        summed: Tensor = self.conv2(F.silu(hidden, inplace=True))
        return summed.add_(self.shortcut(x))


class ToldAttention(GridAttention):
    """Attention between all places of a grid that is told the latents."""

    def __init__(self, channels: int, dim: int, groups: int) -> None:
        super().__init__(channels, groups)
        self.norm = SpatialNorm(channels, dim, groups)  # type: ignore[assignment]

    def forward(self, x: Tensor, latents: Tensor) -> Tensor:  # type: ignore[override]
        rows = rearrange(self.norm(x, latents), "b c h w -> b (h w) c")
        return self._attend(x, rows)


class ToldStage(nn.Module):
    """Blocks at one resolution, each perhaps followed by attention; then perhaps twice it."""

    def __init__(
        self, widths: tuple[int, int], sizes: Sizes, *, attention: bool, double: bool
    ) -> None:
        super().__init__()
        before, width = widths
        told = (sizes.dim, sizes.groups)
        self.blocks = nn.ModuleList(
            ToldBlock(before if index == 0 else width, width, *told)
            for index in range(sizes.blocks)
        )
        self.attention = nn.ModuleList(
            ToldAttention(width, *told) for _ in range(sizes.blocks if attention else 0)
        )
        self.resample = Double(width) if double else nn.Identity()

    def forward(self, x: Tensor, latents: Tensor) -> Tensor:
        for index, block in enumerate(self.blocks):
            x = block(x, latents)
            if len(self.attention):
                x = self.attention[index](x, latents)
        resampled: Tensor = self.resample(x)
        return resampled


class Emu3Decoder(VQGANStack):
    """A grid of latents to images; arguments as for :class:`VQGANStack`.

    ``channels`` and ``attention`` count from the finest stage, which comes last; ``dim`` is equal
    to ``latent_channels``: the latents go the same way as what they tell.
    """

    kind = "emu3"

    def _layers(self, sizes: Sizes) -> None:
        if sizes.dim != sizes.latent_channels:
            raise ValueError(f"dim is {sizes.dim}, latent_channels {sizes.latent_channels}")
        channels, last, width = sizes.channels, len(sizes.channels) - 1, sizes.latent_channels
        blocks = sizes.blocks - 1  # of the encoder, which has one less in each stage
        self.projection = nn.Conv2d(sizes.dim, width, 1)
        self.frames = nn.Sequential(
            *(StillBlock(width) for _ in range(blocks)),
            *(nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.SiLU()) for _ in range(2)),
        )
        self.input = nn.Conv2d(width, channels[-1], 3, padding=1)
        told = (sizes.dim, sizes.groups)
        self.middle = nn.ModuleList(
            [
                ToldBlock(channels[-1], channels[-1], *told),
                ToldAttention(channels[-1], *told),
                ToldBlock(channels[-1], channels[-1], *told),
            ]
        )
        self.stages = nn.ModuleList(
            ToldStage(
                (channels[min(stage + 1, last)], channels[stage]),
                sizes,
                attention=stage in sizes.attention,
                double=stage > 0,
            )
            for stage in reversed(range(len(channels)))
        )
        self.norm = SpatialNorm(channels[0], *told)
        self.output = nn.Conv2d(channels[0], sizes.in_channels, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """[B, h, w, D] -> float [B, C, H, W], H = h * ``downsample``."""
        planes = rearrange(latents, "b h w d -> b d h w")
        hidden, told = self.frames(torch.cat([self.projection(planes), planes])).chunk(2)
        hidden = self.input(hidden)
        for layer in [*self.middle, *self.stages]:
            hidden = layer(hidden, told)
        images: Tensor = self.output(F.silu(self.norm(hidden, told)))
        return images
