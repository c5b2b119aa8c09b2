"""The encoder and decoder of Open-MAGVIT2 (Luo et al., 2024, arXiv:2409.04410).

MaskGIT's with strided convolutions, and a decoder whose stages begin with a normalisation that is
told the mean and the spread of the latents.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vqtok.nn.maskgit import MaskGITDecoder, MaskGITEncoder
from vqtok.nn.vqgan import through

_EPSILON = 1e-6


class MAGVITEncoder(MaskGITEncoder):
    """Images to a grid of latents; see :class:`LeanStack`."""

    kind = "magvit"
    shortcut = True

    def _halve(self, width: int) -> nn.Module:
        return nn.Conv2d(width, width, 3, stride=2, padding=1)


class ToldNorm(nn.Module):
    """Group normalisation with scale and shift from the spread and the mean of the latents."""

    def __init__(self, channels: int, dim: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.scale = nn.Linear(dim, channels)
        self.shift = nn.Linear(dim, channels)

    def forward(self, x: Tensor, spread: Tensor, mean: Tensor) -> Tensor:
        normed = torch.group_norm(x, self.groups, eps=_EPSILON)
        scale, shift = self.scale(spread)[..., None, None], self.shift(mean)[..., None, None]
        # In place where no gradient needs what was there.
        out = None if torch.is_grad_enabled() else normed
        return torch.addcmul(shift, normed, scale, out=out)


class MAGVITDecoder(MaskGITDecoder):
    """A grid of latents to images; see :class:`LeanStack`."""

    kind = "magvit"
    shortcut = True

    def _layers(self, channels: list[int], in_channels: int) -> None:
        super()._layers(channels, in_channels)
        before = [*channels[1:], channels[-1]]
        self.told = nn.ModuleList(
            ToldNorm(width, self.dim, self.groups) for width in reversed(before)
        )

    def _double(self, width: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, latents: Tensor) -> Tensor:
        """[B, h, w, D] -> float [B, C, H, W], H = h * ``downsample``; at least two latents."""
        places = latents.flatten(1, 2)
        spread = (places.var(1) + _EPSILON).sqrt()
        mean = places.mean(1)
        layers: list[Callable[[Tensor], Tensor]] = [self.input, *self.middle]
        for told, stage in zip(self.told, self.stages, strict=True):
            assert isinstance(stage, nn.Sequential)
            layers += [partial(told, spread=spread, mean=mean), *stage]
        hidden = self.norm(through(rearrange(latents, "b h w d -> b d h w"), layers))
        images: Tensor = self.output(F.silu(hidden, inplace=True))
        return images
