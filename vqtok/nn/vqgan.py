"""The convolutional encoder and decoder of VQGAN (Esser et al., 2021, arXiv:2012.09841).

The layout that most published image tokenizers share: residual blocks with group normalisation,
attention where the grid is small. Both look at the whole image (the normalisation takes statistics
over it), so an image is coded in one piece and memory grows with it; for models of one's own,
:mod:`vqtok.nn.conv` is faster and codes in tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vqtok.nn.conv import Stack


class NormedBlock(nn.Module):
    """``shortcut(x) + conv3x3(silu(norm(conv3x3(silu(norm(x))))))``."""

    def __init__(self, channels_in: int, channels_out: int, groups: int) -> None:
        super().__init__()
        self.norm1 = group_norm(channels_in, groups)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = group_norm(channels_out, groups)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.shortcut = (
            nn.Identity()
            if channels_in == channels_out
            else nn.Conv2d(channels_in, channels_out, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x), inplace=True))
        hidden = self.norm2(hidden)
        summed: Tensor = self.conv2(F.silu(hidden, inplace=True))
        return summed.add_(self.shortcut(x))


class GridAttention(nn.Module):
    """Attention of one head between all places of a grid, beside a shortcut."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = group_norm(channels, groups)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self._attend(x, rearrange(self.norm(x), "b c h w -> b (h w) c"))

    def _attend(self, x: Tensor, rows: Tensor) -> Tensor:
        seen = F.scaled_dot_product_attention(self.query(rows), self.key(rows), self.value(rows))
        summed: Tensor = x + rearrange(self.output(seen), "b (h w) c -> b c h w", h=x.shape[2])
        return summed


class Stage(nn.Module):
    """Blocks at one resolution, each perhaps followed by attention; then a change of resolution.

    Args:
        channels_in, channels_out: of the first block; the others keep the latter.
        blocks: how many.
        attention: whether each is followed by attention.
        resample: the last layer, or None.
        groups: of the normalisation.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        blocks: int,
        *,
        attention: bool,
        resample: nn.Module | None,
        groups: int,
    ) -> None:
        super().__init__()
        widths = [channels_in] + [channels_out] * blocks
        self.blocks = nn.ModuleList(
            NormedBlock(before, after, groups) for before, after in pairwise(widths)
        )
        self.attention = nn.ModuleList(
            GridAttention(channels_out, groups) for _ in range(blocks if attention else 0)
        )
        self.resample = resample or nn.Identity()

    def layers(self) -> Iterator[nn.Module]:
        """In the order in which they run."""
        for index, block in enumerate(self.blocks):
            yield block
            if len(self.attention):
                yield self.attention[index]
        yield self.resample


def layers_of(stages: nn.Sequential) -> Iterator[nn.Module]:
    """Those of all stages."""
    for stage in stages:
        assert isinstance(stage, Stage)
        yield from stage.layers()


def through(x: Tensor, layers: Iterable[Callable[[Tensor], Tensor]]) -> Tensor:
    """What layers make of x one after the other, none of which is kept longer than it is needed."""
    for layer in layers:
        x = layer(x)
    return x


class Halve(nn.Conv2d):
    """A 3 x 3 convolution of stride 2 with zeros at the right and at the bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Double(nn.Conv2d):
    """Every place becomes four equal ones, then a 3 x 3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest"))


@dataclass(frozen=True)
class Sizes:
    """The numbers that describe an encoder or a decoder; see :class:`VQGANStack`."""

    channels: Sequence[int]
    blocks: int
    attention: Collection[int]
    middle_attention: bool
    latent_channels: int
    dim: int
    in_channels: int
    groups: int
    kernel: int

    def __post_init__(self) -> None:
        sizes = (self.blocks, self.latent_channels, self.dim, self.in_channels, self.groups)
        if not self.channels or min(*self.channels, *sizes) < 1:
            raise ValueError("channels, blocks, latent_channels, dim and groups must be positive")
        if any(width % self.groups for width in self.channels):
            raise ValueError(
                f"channels {list(self.channels)} must be multiples of {self.groups} groups"
            )
        if not set(self.attention) <= set(range(len(self.channels))):
            raise ValueError(
                f"attention names stages {sorted(self.attention)} of {len(self.channels)}"
            )
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, not {self.kernel}")


class VQGANStack(Stack):
    """What encoder and decoder have in common.

    Args:
        channels: width of each stage, finest first; each stage but the last is at half the
            resolution of the one before.
        blocks: residual blocks of every stage.
        attention: the stages (0 is the finest) whose blocks are followed by attention.
        middle_attention: whether there is attention between the two blocks at the coarsest stage.
        latent_channels: what the layers end or begin in, beside a linear map to or from ``dim``.
        dim: D, the dimension of a latent.
        in_channels: image channels C.
        groups: of the group normalisation.
        kernel: of the linear map.
    """

    kind = "vqgan"

    def __init__(
        self,
        channels: Sequence[int],
        blocks: int,
        *,
        attention: Collection[int] = (),
        middle_attention: bool = True,
        latent_channels: int = 256,
        dim: int = 256,
        in_channels: int = 3,
        groups: int = 32,
        kernel: int = 1,
    ) -> None:
        super().__init__()
        self.config = {
            "type": self.kind,
            "channels": list(channels),
            "blocks": blocks,
            "attention": sorted(attention),
            "middle_attention": middle_attention,
            "latent_channels": latent_channels,
            "dim": dim,
            "in_channels": in_channels,
            "groups": groups,
        }
        if kernel != 1:  # left out otherwise, so that older configs keep their fingerprint
            self.config["kernel"] = kernel
        self.dim = dim
        self.downsample = 2 ** (len(channels) - 1)
        self.context = None
        self._layers(
            Sizes(
                *(channels, blocks, attention, middle_attention),
                *(latent_channels, dim, in_channels, groups, kernel),
            )
        )

    def _layers(self, sizes: Sizes) -> None:
        raise NotImplementedError


class VQGANEncoder(VQGANStack):
    """Images to a grid of latents; see :class:`VQGANStack`."""

    def _layers(self, sizes: Sizes) -> None:
        channels, last = sizes.channels, len(sizes.channels) - 1
        self.input = nn.Conv2d(sizes.in_channels, channels[0], 3, padding=1)
        self.stages = nn.Sequential(
            *(
                Stage(
                    *(channels[max(stage - 1, 0)], width, sizes.blocks),
                    attention=stage in sizes.attention,
                    resample=Halve(width) if stage < last else None,
                    groups=sizes.groups,
                )
                for stage, width in enumerate(channels)
            )
        )
        self.middle = _middle(channels[-1], sizes.middle_attention, sizes.groups)
        self.norm = group_norm(channels[-1], sizes.groups)
        self.output = nn.Conv2d(channels[-1], sizes.latent_channels, 3, padding=1)
        self.projection = self._projection(sizes)

    def _projection(self, sizes: Sizes) -> nn.Module:
        padding = sizes.kernel // 2
        return nn.Conv2d(sizes.latent_channels, sizes.dim, sizes.kernel, padding=padding)

    def forward(self, images: Tensor) -> Tensor:
        """float [B, C, H, W], -1..1, H and W multiples of ``downsample`` -> [B, h, w, D]."""
        layers = chain(layers_of(self.stages), self.middle)
        hidden = self.norm(through(self.input(images), layers))
        latents: Tensor = self.projection(self.output(F.silu(hidden, inplace=True)))
        return rearrange(latents, "b d h w -> b h w d")


class VQGANDecoder(VQGANStack):
    """A grid of latents to images: the mirror of :class:`VQGANEncoder`, with the same arguments.

    ``channels`` and ``attention`` count from the finest stage, which comes last.
    """

    def _layers(self, sizes: Sizes) -> None:
        channels, last = sizes.channels, len(sizes.channels) - 1
        padding = sizes.kernel // 2
        self.projection = nn.Conv2d(sizes.dim, sizes.latent_channels, sizes.kernel, padding=padding)
        self.input = nn.Conv2d(sizes.latent_channels, channels[-1], 3, padding=1)
        self.middle = _middle(channels[-1], sizes.middle_attention, sizes.groups)
        self.stages = nn.Sequential(
            *(
                Stage(
                    *(channels[min(stage + 1, last)], channels[stage], sizes.blocks),
                    attention=stage in sizes.attention,
                    resample=Double(channels[stage]) if stage else None,
                    groups=sizes.groups,
                )
                for stage in reversed(range(len(channels)))
            )
        )
        self.norm = group_norm(channels[0], sizes.groups)
        self.output = nn.Conv2d(channels[0], sizes.in_channels, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """[B, h, w, D] -> float [B, C, H, W], H = h * ``downsample``."""
        layers = chain(self.middle, layers_of(self.stages))
        hidden = self.projection(rearrange(latents, "b h w d -> b d h w"))
        hidden = self.norm(through(self.input(hidden), layers))
        images: Tensor = self.output(F.silu(hidden, inplace=True))
        return images


class GroupNorm(nn.GroupNorm):
    """``nn.GroupNorm`` that takes a group of one number, too: a tiny image in a narrow model."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def group_norm(channels: int, groups: int) -> nn.GroupNorm:
    """Group normalisation as VQGAN has it."""
    return GroupNorm(groups, channels, eps=1e-6)


def _middle(channels: int, attention: bool, groups: int) -> nn.Sequential:
    between = GridAttention(channels, groups) if attention else nn.Identity()
    blocks = [NormedBlock(channels, channels, groups) for _ in range(2)]
    return nn.Sequential(blocks[0], between, blocks[1])
