"""Layers along time, [B, n, C]: what a stack for sound is made of between its transforms.

Each says how far it looks: ``context`` = (frames before, frames after). A frame outside of that
never changes the output, so long signals can be computed in blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TimeConv(nn.Module):
    """A dense convolution over frames, as one matrix product over shifted copies.

    On CPUs with matrix units this is the fastest form of a convolution along time; it also runs
    in bfloat16 without a layout change.

    Args:
        channels_in, channels_out: widths.
        kernel: frames, odd.
        dilation: between them.
        causal: look only at frames before.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        kernel: int = 3,
        dilation: int = 1,
        causal: bool = False,
    ) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0 or dilation < 1:
            raise ValueError(f"kernel must be odd and dilation positive, not {kernel}, {dilation}")
        reach = dilation * (kernel - 1)
        self.context = (reach, 0) if causal else (reach // 2, reach // 2)
        self.kernel = kernel
        self.dilation = dilation
        self.linear = nn.Linear(kernel * channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (0, 0, *self.context))
        shifts = [
            padded[:, index * self.dilation : index * self.dilation + x.shape[1]]
            for index in range(self.kernel)
        ]
        y: Tensor = self.linear(torch.cat(shifts, dim=-1))
        return y


class ConvBlock(nn.Module):
    """``x + linear(silu(conv(norm(x))))``; starts as the identity.

    Args:
        channels: C.
        dilation: of the convolution of three frames.
        causal: look only at frames before.
    """

    def __init__(self, channels: int, *, dilation: int = 1, causal: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.expand = TimeConv(channels, 2 * channels, dilation=dilation, causal=causal)
        self.project = zero_start(nn.Linear(2 * channels, channels))
        self.context = self.expand.context

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.project(F.silu(self.expand(self.norm(x))))
        return x + residual


class AttentionBlock(nn.Module):
    """Attention over the nearest frames, then a layer of its own; starts as the identity.

    Frames attend to those at most ``window`` away, with a learned bias for each distance in place
    of position embeddings, so the block is the same everywhere in a signal.

    Args:
        channels: C, a multiple of 32 (the width of a head).
        window: frames to each side.
        causal: attend only to frames before, and itself.
    """

    head = 32

    def __init__(self, channels: int, *, window: int = 16, causal: bool = False) -> None:
        super().__init__()
        if channels % self.head or window < 0:
            raise ValueError(
                f"channels must be a multiple of {self.head} and window at least 0, "
                f"not {channels} and {window}"
            )
        self.context = (window, 0) if causal else (window, window)
        self.norm = nn.LayerNorm(channels)
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.bias = nn.Parameter(torch.zeros(channels // self.head, sum(self.context) + 1))
        self.out = zero_start(nn.Linear(channels, channels))
        self.mix = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, 2 * channels),
            nn.SiLU(),
            zero_start(nn.Linear(2 * channels, channels)),
        )

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == 0:
            return x
        heads = self.query_key_value(self.norm(x)).unflatten(-1, (3, -1, self.head))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        bias = self._bias(x.shape[1]).to(query.dtype)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        mixed: Tensor = self.mix(x)
        return x + mixed

    def _bias(self, frames: int) -> Tensor:
        """[heads, n, n]: the bias of each pair, -inf beyond the window."""
        place = torch.arange(frames, device=self.bias.device)
        before, after = self.context
        offset = place[None, :] - place[:, None] + before
        inside = (offset >= 0) & (offset <= before + after)
        bias = self.bias[:, offset.clamp(0, before + after)]
        return bias.masked_fill(~inside, float("-inf"))


def _conv(channels: int, index: int, causal: bool) -> nn.Module:
    return ConvBlock(channels, dilation=(1, 2, 4)[index % 3], causal=causal)


def _attention(channels: int, index: int, causal: bool) -> nn.Module:
    """Every third layer attends."""
    if index % 3 == 2:
        return AttentionBlock(channels, causal=causal)
    return _conv(channels, index, causal)


# How the index-th layer of a stack is made.
BLOCKS: dict[str, Callable[[int, int, bool], nn.Module]] = {
    "conv": _conv,
    "attention": _attention,
}


def build_blocks(kind: str, channels: int, count: int, *, causal: bool) -> nn.Sequential:
    """``count`` layers of a kind in :data:`BLOCKS`; ValueError for an unknown one."""
    if kind not in BLOCKS:
        raise ValueError(f"unknown block {kind!r}, expected one of {list(BLOCKS)}")
    return nn.Sequential(*[BLOCKS[kind](channels, index, causal) for index in range(count)])


def total_context(module: nn.Module) -> tuple[int, int]:
    """The reach of layers that run one after another: the sum of theirs, before and after."""
    found: list[Any] = [getattr(child, "context", (0, 0)) for child in module.children()]
    return sum(before for before, _ in found), sum(after for _, after in found)


def zero_start(layer: nn.Linear) -> nn.Linear:
    """The layer, starting as zero."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
