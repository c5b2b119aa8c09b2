"""Layers along time, [B, n, C]: what a stack for sound is made of between its transforms.

Each says how far it looks: ``context`` = (frames before, frames after). A frame outside of that
never changes the output, so long signals can be computed in blocks.
"""

from __future__ import annotations

import math
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
        self.mix = _mix(channels)

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


class RecurrentBlock(nn.Module):
    """A recurrent network over the nearest frames, then a layer of its own; starts as the identity.

    The gates see the frame alone, h_t = (1 - z_t) h_{t-1} + z_t c_t (minGRU; Feng et al., 2024,
    arXiv:2410.01201), so all frames are computed at once. A frame starts from zero ``window - 1``
    frames before it: what came earlier is forgotten altogether, not nearly, and the block is the
    same everywhere in a signal. One half of the channels runs backwards, unless it is causal.

    Args:
        channels: C, even.
        window: frames that a state remembers, a power of two.
        causal: all channels run forwards.
    """

    def __init__(self, channels: int, *, window: int = 32, causal: bool = False) -> None:
        super().__init__()
        if channels % 2 or window < 2 or window & (window - 1):
            raise ValueError(
                f"channels must be even and window a power of two, not {channels} and {window}"
            )
        self.context = (window - 1, 0) if causal else (window - 1, window - 1)
        self.window = window
        self.causal = causal
        self.norm = nn.LayerNorm(channels)
        self.gate = nn.Linear(channels, channels)
        self.candidate = nn.Linear(channels, channels)
        self.out = zero_start(nn.Linear(channels, channels))
        self.mix = _mix(channels)
        with torch.no_grad():  # at first, each direction has memories of 2 frames to the window
            frames = torch.logspace(1, math.log2(window), channels if causal else channels // 2, 2)
            self.gate.bias.copy_(-(frames.repeat(1 if causal else 2) - 1).log())

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        gate = self.gate(normed).sigmoid().float()
        keep, step = 1 - gate, gate * self.candidate(normed).float()
        half = x.shape[2] if self.causal else x.shape[2] // 2
        states = self._scan(keep[..., :half], step[..., :half])
        if not self.causal:
            back = self._scan(keep[..., half:].flip(1), step[..., half:].flip(1)).flip(1)
            states = torch.cat([states, back], dim=-1)
        x = x + self.out(states.to(normed.dtype))
        mixed: Tensor = self.mix(x)
        return x + mixed

    def _scan(self, keep: Tensor, step: Tensor) -> Tensor:
        """States after the last ``window`` steps h -> keep * h + step; spans double."""
        reach = 1
        while reach < self.window:
            before = F.pad(step, (0, 0, reach, 0))[:, : step.shape[1]]
            step = step + keep * before
            keep = keep * F.pad(keep, (0, 0, reach, 0))[:, : keep.shape[1]]
            reach *= 2
        return step


def _mix(channels: int) -> nn.Sequential:
    """A layer for each frame alone, starting as zero."""
    return nn.Sequential(
        nn.LayerNorm(channels),
        nn.Linear(channels, 2 * channels),
        nn.SiLU(),
        zero_start(nn.Linear(2 * channels, channels)),
    )


def _conv(channels: int, index: int, causal: bool) -> nn.Module:
    return ConvBlock(channels, dilation=(1, 2, 4)[index % 3], causal=causal)


def _attention(channels: int, index: int, causal: bool) -> nn.Module:
    """Every third layer attends."""
    if index % 3 == 2:
        return AttentionBlock(channels, causal=causal)
    return _conv(channels, index, causal)


def _recurrent(channels: int, index: int, causal: bool) -> nn.Module:
    """Every third layer is recurrent."""
    if index % 3 == 2:
        return RecurrentBlock(channels, causal=causal)
    return _conv(channels, index, causal)


# How the index-th layer of a stack is made.
BLOCKS: dict[str, Callable[[int, int, bool], nn.Module]] = {
    "conv": _conv,
    "attention": _attention,
    "recurrent": _recurrent,
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
