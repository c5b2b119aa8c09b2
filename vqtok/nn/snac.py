"""The encoder and decoder of SNAC (Siuzdak et al., 2024, arXiv:2410.14411).

DAC's layers, each channel by itself where they look along time, perhaps with attention within
windows at the latent rate. Codes come at several rates, so what one step of the coarsest and one
window of attention hold is one frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vqtok.nn.rotation import Rotation
from vqtok.nn.sound import SoundStack
from vqtok.nn.waveform import ResidualUnit, Snake, WaveConv, WaveLayer, WaveUp, reach
from vqtok.nn.waves import check_waves

_HEAD = 64


class WindowAttention(WaveLayer):
    """``x + attention(norm(x))`` of [B, C, T] among the places of a window, which T is full of."""

    def __init__(self, channels: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.norm = nn.LayerNorm(channels)
        self.query_key_value = nn.Linear(channels, 3 * channels, bias=False)
        self.output = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        packed = self.query_key_value(self.norm(x.transpose(1, 2)))
        query, key, value = rearrange(
            packed, "b (n w) (p h d) -> p (b n) h w d", p=3, w=self.window, d=_HEAD
        )
        turn = Rotation(self.window, _HEAD, packed)
        seen = F.scaled_dot_product_attention(turn(query), turn(key), value)
        rows = rearrange(seen, "(b n) h w d -> b (n w) (h d)", b=len(x))
        attended: Tensor = self.output(rows)
        return x + attended.transpose(1, 2)

    def reach(self, first: int, last: int) -> tuple[int, int]:
        return first // self.window * self.window, (last // self.window + 1) * self.window - 1


class Chain(WaveLayer):
    """Layers one after another."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y

    def reach(self, first: int, last: int) -> tuple[int, int]:
        return reach(self.layers, first, last)


class SNACStack(SoundStack):
    """What encoder and decoder have in common.

    Args:
        channels: width of the stage at the sample rate; every stage further doubles it.
        strides: of the stages, from the samples on.
        size: dimension of what stands for one step of the last stage.
        frame: steps of a latent; the hop is their number times the product of the strides.
        window: steps that attend to each other; 0 without attention.
        sample_rate: in Hz.
    """

    ends = "cut"

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        *,
        size: int,
        frame: int,
        window: int = 0,
        sample_rate: int = 24_000,
    ) -> None:
        super().__init__()
        if not strides or min(channels, size, frame, sample_rate, *strides) < 1:
            raise ValueError("channels, strides, size, frame and sample_rate must be positive")
        width = channels * 2 ** len(strides)
        if window < 0 or (window and (frame % window or width % _HEAD)):
            raise ValueError(
                f"attention takes a frame ({frame}) of whole windows ({window}) and a width "
                f"({width}) of whole heads of {_HEAD}"
            )
        self.config = {
            "type": "snac",
            "channels": channels,
            "strides": list(strides),
            "size": size,
            "frame": frame,
            "window": window,
            "sample_rate": sample_rate,
        }
        self.frame = frame
        self.dim = frame * size
        self.hop = frame * math.prod(strides)
        self.sample_rate = sample_rate
        attention = [WindowAttention(width, window)] if window else []
        self.layers = nn.Sequential(*self._layers(channels, strides, size, attention))
        self.context = self._context()

    def _layers(
        self, channels: int, strides: Sequence[int], size: int, attention: list[WindowAttention]
    ) -> list[nn.Module]:
        raise NotImplementedError

    def _context(self) -> tuple[int, int]:
        raise NotImplementedError


class SNACEncoder(SNACStack):
    """Samples to latents; see :class:`SNACStack`. ``size`` is the width of the last stage."""

    def _layers(
        self, channels: int, strides: Sequence[int], size: int, attention: list[WindowAttention]
    ) -> list[nn.Module]:
        if size != channels * 2 ** len(strides):
            raise ValueError(f"the encoder ends {channels * 2 ** len(strides)} wide, not {size}")
        layers: list[nn.Module] = [WaveConv(1, channels, 7)]
        for stride in strides:
            layers.append(
                Chain(
                    *_units(channels),
                    Snake(channels),
                    WaveConv(channels, 2 * channels, 2 * stride, stride=stride),
                )
            )
            channels *= 2
        return [*layers, *attention, WaveConv(size, size, 7, groups=size)]

    def _context(self) -> tuple[int, int]:
        first, last = reach(self.layers, 0, self.frame - 1)
        return -first, last - self.hop + 1

    def forward(self, wave: Tensor) -> Tensor:
        """float [B, T], T a multiple of ``hop``, full scale 1 -> latents [B, T / hop, D]."""
        check_waves(wave, self.hop)
        if wave.shape[1] == 0:
            return wave.new_zeros(len(wave), 0, self.dim)
        steps: Tensor = self.layers(wave[:, None])
        return rearrange(steps, "b d (n f) -> b n (f d)", f=self.frame)


class SNACDecoder(SNACStack):
    """Latents to samples: the mirror of :class:`SNACEncoder`; see :class:`SNACStack`.

    The noise that the published decoder adds in every stage, other for every call, is left out:
    the same codes give the same sound.
    """

    def _layers(
        self, channels: int, strides: Sequence[int], size: int, attention: list[WindowAttention]
    ) -> list[nn.Module]:
        width = channels * 2 ** len(strides)
        layers: list[nn.Module] = [WaveConv(size, size, 7, groups=size), WaveConv(size, width, 1)]
        layers += attention
        for stride in reversed(strides):
            layers.append(
                Chain(Snake(width), WaveUp(width, width // 2, stride), *_units(width // 2))
            )
            width //= 2
        return [*layers, Snake(width), WaveConv(width, 1, 7), nn.Tanh()]

    def _context(self) -> tuple[int, int]:
        first, last = reach(self.layers, 0, self.hop - 1)
        return -(first // self.frame), last // self.frame

    def forward(self, latents: Tensor) -> Tensor:
        """[B, n, D] -> float [B, n * hop], within -1..1."""
        if latents.shape[1] == 0:
            return latents.new_zeros(len(latents), 0)
        wave: Tensor = self.layers(rearrange(latents, "b n (f d) -> b d (n f)", f=self.frame))
        return wave[:, 0]


def _units(channels: int) -> list[nn.Module]:
    return [ResidualUnit(channels, d, "snake", False, channels) for d in (1, 3, 9)]
