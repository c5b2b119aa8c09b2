"""The encoder and decoder of EnCodec (SEANet; Défossez et al., 2022, arXiv:2210.13438).

Convolutions over samples with a recurrent layer at the latent rate. The recurrent layer sees all
that came before, so a sound is coded in one piece.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from vqtok.nn.sound import SoundStack


class ReflectedConv(nn.Module):
    """A convolution of [B, C, T] to ceil(T / stride) places, its input mirrored at the ends.

    Args:
        channels_in, channels_out, kernel, stride, dilation: of the convolution.
        causal: see only what came before.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        causal: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels_in, channels_out, kernel, stride=stride, dilation=dilation)
        self.stride = stride
        total = (kernel - 1) * dilation + 1 - stride
        self.padding = (total, 0) if causal else (total - total // 2, total // 2)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.padding
        right += -x.shape[-1] % self.stride
        # A sound shorter than what is mirrored gets zeros behind it first.
        short = max(left, right) - x.shape[-1] + 1
        if short > 0:
            x = F.pad(x, (0, short))
        padded = F.pad(x, (left, right), mode="reflect")
        y: Tensor = self.conv(padded[..., : padded.shape[-1] - max(short, 0)])
        return y


class TrimmedUp(nn.Module):
    """A transposed convolution of kernel 2 s: [B, C, T] to [B, C', T s]."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, *, causal: bool) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(channels_in, channels_out, 2 * stride, stride=stride)
        self.stride = stride
        self.cut = 0 if causal else stride - stride // 2

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y[..., self.cut : self.cut + x.shape[-1] * self.stride]


class Bottlenecked(nn.Module):
    """``shortcut(x) + conv1(elu(conv3(elu(x))))``, with half the channels between."""

    def __init__(self, channels: int, *, causal: bool, shortcut: bool) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.ELU(),
            ReflectedConv(channels, channels // 2, 3, causal=causal),
            nn.ELU(),
            ReflectedConv(channels // 2, channels, 1, causal=causal),
        )
        self.shortcut = (
            ReflectedConv(channels, channels, 1, causal=causal) if shortcut else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        summed: Tensor = self.shortcut(x) + self.block(x)
        return summed


class Recurrent(nn.Module):
    """``x + lstm(x)`` of [B, C, T]."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, layers)

    def forward(self, x: Tensor) -> Tensor:
        seen: Tensor = self.lstm(x.permute(2, 0, 1))[0].permute(1, 2, 0)
        return x + seen


class SEANetEncoder(SoundStack):
    """Samples to latents.

    Args:
        channels: width of the first stage; every stage doubles it.
        strides: of the stages; their product is the hop.
        dim: D, the dimension of a latent.
        sample_rate: in Hz.
        recurrent_layers: of the LSTM.
        causal: see only what came before (a latent still waits for its own hop of samples).
        shortcut: whether there is a convolution beside each residual block.
    """

    context = None
    ends = "cut"

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        *,
        dim: int = 128,
        sample_rate: int = 24_000,
        recurrent_layers: int = 2,
        causal: bool = True,
        shortcut: bool = True,
    ) -> None:
        super().__init__()
        self.config = _config(
            channels, strides, dim, sample_rate, recurrent_layers, causal, shortcut
        )
        self.dim = dim
        self.hop = math.prod(strides)
        self.sample_rate = sample_rate
        layers: list[nn.Module] = [ReflectedConv(1, channels, 7, causal=causal)]
        for stride in strides:
            layers += [
                Bottlenecked(channels, causal=causal, shortcut=shortcut),
                nn.ELU(),
                ReflectedConv(channels, 2 * channels, 2 * stride, stride=stride, causal=causal),
            ]
            channels *= 2
        layers += [Recurrent(channels, recurrent_layers), nn.ELU()]
        layers += [ReflectedConv(channels, dim, 7, causal=causal)]
        self.layers = nn.Sequential(*layers)

    def forward(self, wave: Tensor) -> Tensor:
        """float [B, T], full scale 1 -> latents [B, ceil(T / hop), D]."""
        if wave.shape[1] == 0:
            return wave.new_zeros(len(wave), 0, self.dim)
        latents: Tensor = self.layers(wave[:, None])
        return latents.transpose(1, 2)


class SEANetDecoder(SoundStack):
    """Latents to samples: the mirror of :class:`SEANetEncoder`, with the same arguments.

    ``channels`` is the width of the last stage, at the sample rate.
    """

    context = None
    ends = "cut"

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        *,
        dim: int = 128,
        sample_rate: int = 24_000,
        recurrent_layers: int = 2,
        causal: bool = True,
        shortcut: bool = True,
    ) -> None:
        super().__init__()
        self.config = _config(
            channels, strides, dim, sample_rate, recurrent_layers, causal, shortcut
        )
        self.dim = dim
        self.hop = math.prod(strides)
        self.sample_rate = sample_rate
        width = channels * 2 ** len(strides)
        layers: list[nn.Module] = [
            ReflectedConv(dim, width, 7, causal=causal),
            Recurrent(width, recurrent_layers),
        ]
        for stride in reversed(strides):
            layers += [
                nn.ELU(),
                TrimmedUp(width, width // 2, stride, causal=causal),
                Bottlenecked(width // 2, causal=causal, shortcut=shortcut),
            ]
            width //= 2
        layers += [nn.ELU(), ReflectedConv(width, 1, 7, causal=causal)]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        """[B, n, D] -> float [B, n * hop]."""
        if latents.shape[1] == 0:
            return latents.new_zeros(len(latents), 0)
        wave: Tensor = self.layers(latents.transpose(1, 2))
        return wave[:, 0]


def _config(
    channels: int,
    strides: Sequence[int],
    dim: int,
    sample_rate: int,
    recurrent_layers: int,
    causal: bool,
    shortcut: bool,
) -> dict[str, Any]:
    if not strides or min(channels, dim, sample_rate, recurrent_layers, *strides) < 1:
        raise ValueError("channels, strides, dim, sample_rate and layers must be positive")
    return {
        "type": "seanet",
        "channels": channels,
        "strides": list(strides),
        "dim": dim,
        "sample_rate": sample_rate,
        "recurrent_layers": recurrent_layers,
        "causal": causal,
        "shortcut": shortcut,
    }
