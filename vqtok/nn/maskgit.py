"""The encoder and decoder of MaskGIT's VQGAN (Chang et al., 2022, arXiv:2202.04200).

VQGAN without attention: residual blocks whose convolutions have no bias, means of four places in
place of strided convolutions. Both look at the whole image, for its normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vqtok.nn.conv import Stack
from vqtok.nn.vqgan import Double, group_norm, through


class LeanBlock(nn.Module):
    """``x + conv(silu(norm(conv(silu(norm(x))))))`` without biases.

    Args:
        channels_in, channels_out: widths.
        groups: of the normalisation.
        shortcut: whether a linear map of x is added where the width changes; otherwise nothing is.
    """

    def __init__(
        self, channels_in: int, channels_out: int, groups: int, *, shortcut: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = group_norm(channels_in, groups)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.norm2 = group_norm(channels_out, groups)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.same = channels_in == channels_out
        self.shortcut = (
            nn.Conv2d(channels_in, channels_out, 1, bias=False)
            if shortcut and not self.same
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x), inplace=True))
        hidden = self.norm2(hidden)
        residual: Tensor = self.conv2(F.silu(hidden, inplace=True))
        if self.same:
            return residual.add_(x)
        return residual if self.shortcut is None else residual.add_(self.shortcut(x))


class LeanStack(Stack):
    """What encoders and decoders of this kind have in common.

    Args:
        channels: width of each stage, finest first; each but the last is at half the resolution of
            the one before.
        blocks: residual blocks of every stage and after the coarsest one.
        dim: D, the dimension of a latent.
        in_channels: image channels C.
        groups: of the group normalisation.
    """

    kind = "maskgit"
    shortcut = False

    def __init__(
        self,
        channels: Sequence[int],
        blocks: int,
        *,
        dim: int = 256,
        in_channels: int = 3,
        groups: int = 32,
    ) -> None:
        super().__init__()
        if not channels or min(*channels, blocks, dim, in_channels, groups) < 1:
            raise ValueError("channels, blocks, dim and groups must be positive")
        self.config = {
            "type": self.kind,
            "channels": list(channels),
            "blocks": blocks,
            "dim": dim,
            "in_channels": in_channels,
            "groups": groups,
        }
        self.dim = dim
        self.downsample = 2 ** (len(channels) - 1)
        self.context = None
        self.blocks = blocks
        self.groups = groups
        self._layers(list(channels), in_channels)

    def _layers(self, channels: list[int], in_channels: int) -> None:
        raise NotImplementedError

    def _blocks(self, before: int, width: int) -> list[nn.Module]:
        widths = [before] + [width] * self.blocks
        return [LeanBlock(*pair, self.groups, shortcut=self.shortcut) for pair in pairwise(widths)]


class MaskGITEncoder(LeanStack):
    """Images to a grid of latents; see :class:`LeanStack`."""

    def _layers(self, channels: list[int], in_channels: int) -> None:
        self.input = nn.Conv2d(in_channels, channels[0], 3, padding=1, bias=False)
        last = len(channels) - 1
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    *self._blocks(channels[max(stage - 1, 0)], width),
                    self._halve(width) if stage < last else nn.Identity(),
                )
                for stage, width in enumerate(channels)
            )
        )
        self.middle = nn.Sequential(*self._blocks(channels[-1], channels[-1]))
        self.norm = group_norm(channels[-1], self.groups)
        self.output = nn.Conv2d(channels[-1], self.dim, 1)

    def _halve(self, _width: int) -> nn.Module:
        return nn.AvgPool2d(2)

    def forward(self, images: Tensor) -> Tensor:
        """float [B, C, H, W], -1..1, H and W multiples of ``downsample`` -> [B, h, w, D]."""
        hidden = self.norm(through(self.input(images), chain(*self.stages, self.middle)))
        latents: Tensor = self.output(F.silu(hidden, inplace=True))
        return rearrange(latents, "b d h w -> b h w d")


class MaskGITDecoder(LeanStack):
    """A grid of latents to images; see :class:`LeanStack`."""

    def _layers(self, channels: list[int], in_channels: int) -> None:
        self.input = nn.Conv2d(self.dim, channels[-1], 3, padding=1)
        self.middle = nn.Sequential(*self._blocks(channels[-1], channels[-1]))
        last = len(channels) - 1
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    *self._blocks(channels[min(stage + 1, last)], channels[stage]),
                    self._double(channels[stage]) if stage else nn.Identity(),
                )
                for stage in reversed(range(len(channels)))
            )
        )
        self.norm = group_norm(channels[0], self.groups)
        self.output = nn.Conv2d(channels[0], in_channels, 3, padding=1)

    def _double(self, width: int) -> nn.Module:
        return Double(width)

    def forward(self, latents: Tensor) -> Tensor:
        """[B, h, w, D] -> float [B, C, H, W], H = h * ``downsample``."""
        hidden = self.input(rearrange(latents, "b h w d -> b d h w"))
        hidden = self.norm(through(hidden, chain(self.middle, *self.stages)))
        images: Tensor = self.output(F.silu(hidden, inplace=True))
        return images
