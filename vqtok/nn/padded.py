"""Convolutions along time whose input is padded, or whose output is cut, to whole strides."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtok.nn.rows import RowConv, RowUp, pad
from vqtok.nn.time_norm import TimeNorm

PIECE = 1 << 18
"""Numbers that are worked on at a time: about what a cache holds."""


class PaddedConv(nn.Module):
    """A convolution of [B, C, T] to ceil(T / stride) places, its input padded at the ends.

    Args:
        channels_in, channels_out, kernel, stride: of the convolution.
        causal: see only what came before.
        padding: ``"reflect"``, ``"constant"`` (zeros) or ``"replicate"``.
        normed: whether a normalisation follows.
        bias: whether there is one.
        activated: whether ELU comes first. (After the padding, which it does not change: in place.)
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        stride: int = 1,
        causal: bool = True,
        padding: str = "reflect",
        normed: bool = False,
        bias: bool = True,
        activated: bool = False,
    ) -> None:
        super().__init__()
        self.activated = activated
        self.conv = RowConv(channels_in, channels_out, kernel, stride=stride, bias=bias)
        self.norm = TimeNorm(channels_out) if normed else nn.Identity()
        self.stride = stride
        self.mode = padding
        total = kernel - stride
        self.padding = (total, 0) if causal else (total - total // 2, total // 2)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.padding
        right += -x.shape[-1] % self.stride
        # A sound shorter than what is mirrored gets zeros behind it first.
        short = max(max(left, right) - x.shape[-1] + 1, 0) if self.mode == "reflect" else 0
        if short:
            x = pad(x, 0, short)
        right -= short
        whole = x.device.type != "cpu" or torch.is_grad_enabled() or not (self.activated or left)
        y: Tensor = self.norm((self._at_once if whole else self._by_pieces)(x, left, right))
        return y

    def _at_once(self, x: Tensor, left: int, right: int) -> Tensor:
        padded = pad(x, left, max(right, 0), self.mode)
        if self.activated:
            padded = F.elu(padded, inplace=padded is not x)
        y: Tensor = self.conv(padded[..., : padded.shape[-1] + min(right, 0)])
        return y

    def _by_pieces(self, x: Tensor, left: int, right: int) -> Tensor:
        """The same without a copy of x as large as x: what is padded and activated is used while it
        is in the cache."""
        conv, stride, length = self.conv, self.stride, x.shape[-1]
        kernel = conv.span + 1
        places = (length + left + right - kernel) // stride + 1
        step = max(PIECE // (x.shape[1] * stride), kernel)
        if places < 2 * step:
            return self._at_once(x, left, right)
        y = x.new_empty(len(x), places, conv.out_channels).transpose(1, 2)
        for first in range(0, places - step + 1, step):
            last = places if places - first < 2 * step else first + step
            begin, end = first * stride - left, (last - 1) * stride + kernel - left
            seen = x[..., max(begin, 0) : end]
            y[..., first:last] = self._at_once(seen, max(-begin, 0), max(end - length, 0))
        return y


class TrimmedUp(nn.Module):
    """A transposed convolution of kernel 2 s: [B, C, T] to [B, C', T s].

    Args:
        channels_in, channels_out, stride: of the convolution.
        causal: give only what later inputs cannot change.
        normed: whether a normalisation follows, before the ends are cut.
        depthwise: each channel by itself, without bias.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        stride: int,
        *,
        causal: bool,
        normed: bool = False,
        depthwise: bool = False,
    ) -> None:
        super().__init__()
        groups = channels_in if depthwise else 1
        self.conv = RowUp(channels_in, channels_out, stride, groups=groups, bias=not depthwise)
        self.norm = TimeNorm(channels_out) if normed else nn.Identity()
        self.stride = stride
        self.cut = 0 if causal else stride - stride // 2

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        return y[..., self.cut : self.cut + x.shape[-1] * self.stride]
