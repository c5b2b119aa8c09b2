"""Encoder and decoder for sound made of convolutions over samples (SEANet, DAC).

What most published codecs are. Layers at the sample rate make them several times slower than the
spectral stacks; they are here to compare with, and for weights from elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vqtok.nn.rows import RowConv, RowUp, pad
from vqtok.nn.sound import ENDS, SoundStack
from vqtok.nn.waves import check_waves

_PIECE = 1 << 16  # numbers


class Snake(nn.Module):
    """``x + sin(a x)^2 / a`` with a learned ``a`` for each channel (Ziyin et al., 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return torch.addcmul(x, (self.alpha * x).sin().square(), self._inverse())
        # In pieces, which stay in the cache.
        out = torch.empty_like(x)
        places = max(1, _PIECE // x.shape[1])
        alpha, inverse = self.alpha[:, 0], self._inverse()[:, 0]
        rows, results = (torch.split(y.transpose(1, 2), places, dim=1) for y in (x, out))
        for row, result in zip(rows, results, strict=True):
            torch.addcmul(row, (alpha * row).sin_().square_(), inverse, out=result)
        return out

    def _inverse(self) -> Tensor:
        return (self.alpha + 1e-9).reciprocal()


ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "snake": Snake,
    "elu": lambda _channels: nn.ELU(),
}


class WaveLayer(nn.Module):
    """A layer that knows which inputs its outputs come from."""

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """The first and last input position that outputs ``first`` to ``last`` depend on."""
        raise NotImplementedError


class WaveConv(WaveLayer):
    """A convolution of [B, C, T] that keeps T, or divides it by its stride.

    Args:
        channels_in, channels_out: widths.
        kernel: samples; twice the stride if that is not 1.
        stride: T must be a multiple of it.
        dilation: between samples of the kernel.
        causal: see only what came before.
        groups: of channels, each seen by its own outputs alone.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        causal: bool = False,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.span = dilation * (kernel - 1)
        padding = self.span + 1 - stride
        self.padding = (padding, 0) if causal else (padding - padding // 2, padding // 2)
        self.even = self.padding[0] == self.padding[1]
        self.conv = RowConv(
            *(channels_in, channels_out, kernel),
            stride=stride,
            padding=self.padding[0] if self.even else 0,  # which needs no padded copy
            dilation=dilation,
            groups=groups,
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x if self.even else pad(x, *self.padding))
        return y

    def reach(self, first: int, last: int) -> tuple[int, int]:
        before = self.padding[0]
        return first * self.stride - before, last * self.stride - before + self.span


class WaveUp(WaveLayer):
    """A transposed convolution of kernel 2 s: [B, C, T] to [B, C', T s]."""

    def __init__(
        self, channels_in: int, channels_out: int, stride: int, *, causal: bool = False
    ) -> None:
        super().__init__()
        self.stride = stride
        self.cut = 0 if causal else -(-stride // 2)
        self.conv = RowUp(channels_in, channels_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y[..., self.cut : self.cut + x.shape[-1] * self.stride]

    def reach(self, first: int, last: int) -> tuple[int, int]:
        lowest = first + self.cut - 2 * self.stride + 1
        return -(-lowest // self.stride), (last + self.cut) // self.stride


class ResidualUnit(WaveLayer):
    """``x + conv1(act(conv7(act(x))))``, the first convolution dilated, perhaps in groups."""

    def __init__(
        self, channels: int, dilation: int, activation: str, causal: bool, groups: int = 1
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ACTIVATIONS[activation](channels),
            WaveConv(channels, channels, 7, dilation=dilation, causal=causal, groups=groups),
            ACTIVATIONS[activation](channels),
            WaveConv(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.layers(x)
        return x + residual if torch.is_grad_enabled() else residual.add_(x)

    def reach(self, first: int, last: int) -> tuple[int, int]:
        return reach(self.layers, first, last)


def reach(layers: nn.Sequential, first: int, last: int) -> tuple[int, int]:
    """The inputs that outputs ``first`` to ``last`` of layers in sequence depend on."""
    for layer in reversed(layers):
        if isinstance(layer, WaveLayer):
            first, last = layer.reach(first, last)
    return first, last


class WaveformEncoder(SoundStack):
    """Samples to latents: residual units, then a strided convolution, stage by stage.

    The layout of DAC (Kumar et al., 2023, arXiv:2306.06546), without weight normalisation.

    Args:
        channels: width of the first stage; every stage doubles it.
        strides: of the stages; their product is the hop.
        dim: D, the dimension of a latent.
        sample_rate: in Hz.
        activation: ``"snake"`` or ``"elu"``.
        causal: see only what came before (a latent still waits for its own hop of samples).
        ends: of a sound, see :class:`SoundStack`; DAC's are ``"cut"``.
    """

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        *,
        dim: int = 128,
        sample_rate: int = 24_000,
        activation: str = "snake",
        causal: bool = False,
        ends: str = "silence",
    ) -> None:
        super().__init__()
        self.config = _config(channels, strides, dim, sample_rate, activation, causal, ends)
        self.ends = ends
        self.dim = dim
        self.hop = math.prod(strides)
        self.sample_rate = sample_rate
        layers: list[nn.Module] = [WaveConv(1, channels, 7, causal=causal)]
        for stride in strides:
            layers += [ResidualUnit(channels, d, activation, causal) for d in (1, 3, 9)]
            layers += [
                ACTIVATIONS[activation](channels),
                WaveConv(channels, 2 * channels, 2 * stride, stride=stride, causal=causal),
            ]
            channels *= 2
        layers += [ACTIVATIONS[activation](channels), WaveConv(channels, dim, 3, causal=causal)]
        self.layers = nn.Sequential(*layers)
        first, last = reach(self.layers, 0, 0)
        self.context = (-first, last - self.hop + 1)

    def forward(self, wave: Tensor) -> Tensor:
        """float [B, T], T a multiple of ``hop``, full scale 1 -> latents [B, T / hop, D]."""
        check_waves(wave, self.hop)
        if wave.shape[1] == 0:
            return wave.new_zeros(len(wave), 0, self.dim)
        latents: Tensor = self.layers(wave[:, None])
        return latents.transpose(1, 2)


class WaveformDecoder(SoundStack):
    """Latents to samples: the mirror of :class:`WaveformEncoder`, with the same arguments.

    ``channels`` is the width of the last stage, at the sample rate.
    """

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        *,
        dim: int = 128,
        sample_rate: int = 24_000,
        activation: str = "snake",
        causal: bool = False,
        ends: str = "silence",
    ) -> None:
        super().__init__()
        self.config = _config(channels, strides, dim, sample_rate, activation, causal, ends)
        self.ends = ends
        self.dim = dim
        self.hop = math.prod(strides)
        self.sample_rate = sample_rate
        width = channels * 2 ** len(strides)
        layers: list[nn.Module] = [WaveConv(dim, width, 7, causal=causal)]
        for stride in reversed(strides):
            layers += [
                ACTIVATIONS[activation](width),
                WaveUp(width, width // 2, stride, causal=causal),
            ]
            width //= 2
            layers += [ResidualUnit(width, d, activation, causal) for d in (1, 3, 9)]
        layers += [ACTIVATIONS[activation](width), WaveConv(width, 1, 7, causal=causal), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        first, last = reach(self.layers, 0, self.hop - 1)
        self.context = (-first, last)

    def forward(self, latents: Tensor) -> Tensor:
        """[B, n, D] -> float [B, n * hop], within -1..1."""
        if latents.shape[1] == 0:
            return latents.new_zeros(len(latents), 0)
        wave: Tensor = self.layers(latents.transpose(1, 2))
        return wave[:, 0]


def _config(
    channels: int,
    strides: Sequence[int],
    dim: int,
    sample_rate: int,
    activation: str,
    causal: bool,
    ends: str,
) -> dict[str, Any]:
    if not strides or min(channels, dim, sample_rate, *strides) < 1:
        raise ValueError("channels, strides, dim and sample_rate must be positive")
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}, expected one of {list(ACTIVATIONS)}")
    if ends not in ENDS:
        raise ValueError(f"ends must be one of {ENDS}, not {ends!r}")
    config: dict[str, Any] = {
        "type": "waveform",
        "channels": channels,
        "strides": list(strides),
        "dim": dim,
        "sample_rate": sample_rate,
        "activation": activation,
        "causal": causal,
    }
    # Left out at its default, so that older configs keep their fingerprint.
    return config if ends == "silence" else {**config, "ends": ends}
