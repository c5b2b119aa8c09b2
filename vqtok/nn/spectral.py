"""Encoder and decoder for sound that work on a spectrum, with no layer at the sample rate.

Time-frequency coefficients (MDCT) are compressed towards how loud they sound, coded by layers at
50 to 100 frames a second, expanded again and transformed back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vqtok.nn.mdct import MDCT
from vqtok.nn.sound import SoundStack
from vqtok.nn.temporal import TimeConv, build_blocks, total_context, zero_start

# About -80 dB of full scale: coefficients below it are compressed linearly.
_FLOOR = 1e-4
_GAIN = 4.0


def compress(coefficients: Tensor) -> Tensor:
    """Sign times 4 (sqrt(|x| + 1e-4) - 1e-2): 60 dB of loudness in 30, linear near zero."""
    root: Tensor = (coefficients.abs() + _FLOOR).sqrt() - _FLOOR**0.5
    return coefficients.sign() * root * _GAIN


def expand(compressed: Tensor) -> Tensor:
    """The inverse of :func:`compress`."""
    magnitude: Tensor = (compressed.abs() / _GAIN + _FLOOR**0.5).square() - _FLOOR
    return compressed.sign() * magnitude


class SpectralEncoder(SoundStack):
    """Samples to latents.

    Layers see the compressed coefficients and the magnitudes of the complex spectrum, which
    don't flutter with phase. Beside them runs a linear map of the compressed coefficients, which
    starts as their lowest D while the layers start at zero: training begins as a transform codec.

    Args:
        channels: width of the layers.
        blocks: their number.
        dim: D, the dimension of a latent, at most ``hop``.
        hop: samples per latent, even.
        sample_rate: in Hz.
        block: a name in ``temporal.BLOCKS``.
        causal: layers look only back; what stays ahead is half a hop of the transform.
    """

    def __init__(
        self,
        channels: int,
        blocks: int,
        *,
        dim: int = 128,
        hop: int = 320,
        sample_rate: int = 24_000,
        block: str = "conv",
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.config = _config(channels, blocks, dim, hop, sample_rate, block, causal)
        self.dim = dim
        self.hop = hop
        self.sample_rate = sample_rate
        self.mdct = MDCT(hop)
        self.layers = nn.Sequential(
            TimeConv(2 * hop, channels, kernel=1),
            *build_blocks(block, channels, blocks, causal=causal),
            nn.LayerNorm(channels),
            zero_start(nn.Linear(channels, dim)),
        )
        self.transform = nn.Linear(hop, dim, bias=False)
        with torch.no_grad():
            self.transform.weight.copy_(torch.eye(dim, hop))
        before, after = total_context(self.layers)
        self.context = (hop // 2 + hop * before, hop // 2 + hop * after)

    def forward(self, wave: Tensor) -> Tensor:
        """float [B, T], T a multiple of ``hop``, full scale 1 -> latents [B, T / hop, D]."""
        cosines, sines = self.mdct(wave)
        magnitudes = (cosines.square() + sines.square() + _FLOOR**2).sqrt()
        coefficients = compress(cosines)
        latents: Tensor = self.layers(torch.cat([coefficients, compress(magnitudes)], dim=-1))
        latents += self.transform(coefficients)
        return latents


class SpectralDecoder(SoundStack):
    """Latents to samples: the mirror of :class:`SpectralEncoder`, with the same arguments.

    A hop of samples lies under three frames, so even the causal decoder waits for one latent
    after it.
    """

    def __init__(
        self,
        channels: int,
        blocks: int,
        *,
        dim: int = 128,
        hop: int = 320,
        sample_rate: int = 24_000,
        block: str = "conv",
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.config = _config(channels, blocks, dim, hop, sample_rate, block, causal)
        self.dim = dim
        self.hop = hop
        self.sample_rate = sample_rate
        self.layers = nn.Sequential(
            TimeConv(dim, channels, causal=causal),
            *build_blocks(block, channels, blocks, causal=causal),
            nn.LayerNorm(channels),
            zero_start(nn.Linear(channels, hop)),
        )
        self.transform = nn.Linear(dim, hop, bias=False)
        with torch.no_grad():
            self.transform.weight.copy_(torch.eye(hop, dim))
        self.mdct = MDCT(hop)
        before, after = total_context(self.layers)
        self.context = (before + 1, after + 1)

    def forward(self, latents: Tensor) -> Tensor:
        """[B, n, D] -> float32 [B, n * hop]."""
        coefficients = self.layers(latents).float() + self.transform(latents).float()
        return self.mdct.inverse(expand(coefficients))


def _config(
    channels: int, blocks: int, dim: int, hop: int, sample_rate: int, block: str, causal: bool
) -> dict[str, Any]:
    if min(channels, dim, sample_rate) < 1 or blocks < 0:
        raise ValueError("channels, dim and sample_rate must be positive")
    if dim > hop:
        raise ValueError(f"dim must be at most the hop, {hop}, not {dim}")
    return {
        "type": "spectral",
        "channels": channels,
        "blocks": blocks,
        "dim": dim,
        "hop": hop,
        "sample_rate": sample_rate,
        "block": block,
        "causal": causal,
    }
