"""Convolutions along time of [B, C, T] whose results lie in memory place by place, as [B, T, C].

On CPUs that saves time: no kernel has to reorder its input first, a transposed convolution is two
matrix products, and one of few places or narrow input is one. Weights lie in memory in the order in
which they are multiplied. Names and shapes are those of torch's layers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RowConv(nn.Conv1d):
    """``nn.Conv1d`` of [B, C, T], with its arguments, for zeros as padding."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(
            *(channels_in, channels_out, kernel, stride, padding, dilation, groups, bias)
        )
        self.weight = nn.Parameter(_by_rows(self.weight.detach()))
        self.span = dilation * (kernel - 1)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        (kernel,), (stride,), (dilation,) = self.kernel_size, self.stride, self.dilation
        padding = int(self.padding[0])
        places = (x.shape[-1] + 2 * padding - self.span - 1) // stride + 1
        # Gathered, what each place sees is a copy: no larger than the result, or than the weights.
        few = kernel * self.in_channels <= self.out_channels or places <= self.out_channels
        short = kernel <= 3 and stride == dilation == 1  # torch would gather it in any case
        if (few or short) and self.groups == 1 and not torch.is_grad_enabled():
            return self._multiply(pad(x, padding, padding), places, 1 if few else kernel)
        if self.groups > 1 and padding:  # slow inside of the convolution
            x, padding = pad(x, padding, padding), 0
        y = F.conv2d(
            *(_flat(x), self.weight.unsqueeze(2), self.bias, (1, stride), (0, padding)),
            *((1, dilation), self.groups),
        )
        return y.squeeze(2)

    def at_places(self, rows: Tensor) -> Tensor:
        """[n, C] to [n, C'], of a kernel of one place."""
        return F.linear(rows, self.weight[..., 0], self.bias)

    def _multiply(self, x: Tensor, places: int, step: int) -> Tensor:
        """The convolution of a padded input as products of what places see.

        Each product is of every ``step``-th place. What these see need not be copied if it does not
        overlap and lies in one piece.
        """
        (kernel,), (stride,), (dilation,) = self.kernel_size, self.stride, self.dilation
        width = self.in_channels
        weight = self.weight.transpose(1, 2).flatten(1).T
        bias = weight.new_zeros(len(weight.T)) if self.bias is None else self.bias
        out = x.new_empty(len(x), places, self.out_channels)
        for rows, result in zip(x.transpose(1, 2).contiguous(), out, strict=True):
            for first in range(min(step, places)):
                some = result[first::step]
                seen = rows.as_strided(
                    (len(some), kernel, width),
                    (step * stride * width, dilation * width, 1),
                    rows.storage_offset() + first * stride * width,
                )
                torch.addmm(bias, seen.flatten(1), weight, out=some)
        return out.transpose(1, 2)


class RowUp(nn.ConvTranspose1d):
    """``nn.ConvTranspose1d`` of kernel 2 s: [B, C, T] to [B, C', (T + 1) s]."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        stride: int,
        *,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(
            channels_in, channels_out, 2 * stride, stride=stride, groups=groups, bias=bias
        )
        self.weight = nn.Parameter(_by_rows(self.weight.detach()))

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if x.device.type != "cpu" or self.groups > 1 or torch.is_grad_enabled():
            return super().forward(x, output_size)
        (stride,) = self.stride
        rows = x.transpose(1, 2)
        # An input adds to its own s outputs and to the next s.
        own, next_ = self.weight.transpose(1, 2).flatten(1).chunk(2, dim=1)
        bias = own.new_zeros(own.shape[1]) if self.bias is None else self.bias.repeat(stride)
        out = rows.new_empty(len(rows), rows.shape[1] + 1, own.shape[1])
        out[:, -1] = bias
        for sample, result in zip(rows, out, strict=True):
            torch.addmm(bias, sample, own, out=result[:-1])
            result[1:].addmm_(sample, next_)
        places = out.shape[1] * stride
        return out.view(len(out), places, self.out_channels).transpose(1, 2)


def pad(x: Tensor, left: int, right: int, mode: str = "constant") -> Tensor:
    """``F.pad`` of [B, C, T], stored place by place; x itself if there is nothing to pad."""
    if left == right == 0:
        return x
    return F.pad(_flat(x), (left, right, 0, 0), mode=mode).squeeze(2)


def _by_rows(x: Tensor) -> Tensor:
    """[..., C, T] stored as [..., T, C]."""
    return x.transpose(-1, -2).contiguous().transpose(-1, -2)


def _flat(x: Tensor) -> Tensor:
    """[B, C, T] as an image of height 1, [B, C, 1, T], stored place by place."""
    return x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
