"""The encoder and decoder of Mimi (Défossez et al., 2024, arXiv:2410.00037).

The convolutions of SEANet without its recurrent layer, then a transformer that sees ten seconds
back, then half the rate. Its layers add up to more than a minute of context, so a sound is coded in
one piece; work and memory grow in proportion to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtok.nn.padded import PaddedConv, TrimmedUp
from vqtok.nn.rotation import Rotation
from vqtok.nn.seanet import Layout
from vqtok.nn.sound import SoundStack

_LAST_STRIDE = 2


class WindowedAttention(nn.Module):
    """Attention of each place to itself and the ``window - 1`` before it, without biases."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.query_key_value = nn.Linear(channels, 3 * channels, bias=False)
        self.output = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor, rotation: Rotation) -> Tensor:
        packed = self.query_key_value(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = rotation(packed[0]), rotation(packed[1]), packed[2]
        seen = torch.cat(
            [self._attend(query, key, value, start) for start in range(0, x.shape[1], self.window)],
            dim=2,
        )
        attended: Tensor = self.output(seen.transpose(1, 2).flatten(2))
        return attended

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, start: int) -> Tensor:
        """What the places from ``start`` on, one window of them, see."""
        if start == 0:
            first = slice(0, self.window)
            return F.scaled_dot_product_attention(
                query[:, :, first], key[:, :, first], value[:, :, first], is_causal=True
            )
        stop = min(start + self.window, query.shape[2])
        first = slice(start - self.window + 1, stop)
        place = torch.arange(stop, device=query.device)
        ago = place[start:, None] - place[None, first]
        mask = (ago >= 0) & (ago < self.window)
        return F.scaled_dot_product_attention(
            query[:, :, start:stop], key[:, :, first], value[:, :, first], attn_mask=mask
        )


class ScaledBlock(nn.Module):
    """``x + scale1 * attention(norm(x))``, then ``x + scale2 * layers(norm(x))``."""

    def __init__(self, channels: int, heads: int, hidden: int, window: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = WindowedAttention(channels, heads, window)
        self.scale1 = nn.Parameter(torch.full((channels,), 0.01))
        self.norm2 = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, hidden, bias=False)
        self.project = nn.Linear(hidden, channels, bias=False)
        self.scale2 = nn.Parameter(torch.full((channels,), 0.01))

    def forward(self, x: Tensor, rotation: Rotation) -> Tensor:
        x = x + self.scale1 * self.attention(self.norm1(x), rotation)
        mixed: Tensor = self.project(F.gelu(self.expand(self.norm2(x))))
        return x + self.scale2 * mixed


class MimiStack(SoundStack):
    """What encoder and decoder have in common.

    Args:
        channels: width of the convolutions at the sample rate; every stage further doubles it.
        strides: of the stages, from the samples on; the hop is twice their product.
        dim: D, the dimension of a latent and width of the transformer.
        sample_rate: in Hz.
        depth: blocks of the transformer.
        heads: of its attention.
        hidden: width of its other layers.
        window: places, of half a hop, that attention sees.
        base: of the rotation that tells places apart.
    """

    context = None
    ends = "cut"

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        *,
        dim: int = 512,
        sample_rate: int = 24_000,
        depth: int = 8,
        heads: int = 8,
        hidden: int = 2048,
        window: int = 250,
        base: float = 10_000.0,
    ) -> None:
        super().__init__()
        if min(sample_rate, depth, heads, hidden, window, base) <= 0 or dim % (2 * heads):
            raise ValueError(
                "sample_rate, depth, heads, hidden, window and base must be positive, and dim "
                f"({dim}) a multiple of twice the heads ({heads})"
            )
        self.config = {
            "type": "mimi",
            "channels": channels,
            "strides": list(strides),
            "dim": dim,
            "sample_rate": sample_rate,
            "depth": depth,
            "heads": heads,
            "hidden": hidden,
            "window": window,
            "base": float(base),
        }
        self.dim = dim
        self.hop = _LAST_STRIDE * math.prod(strides)
        self.sample_rate = sample_rate
        self.head = dim // heads
        self.base = float(base)
        self._convolve(
            Layout(
                channels,
                strides,
                dim,
                recurrent_layers=0,
                shortcut=False,
                last_kernel=3,
                padding="constant",
            )
        )
        self.blocks = nn.ModuleList(ScaledBlock(dim, heads, hidden, window) for _ in range(depth))

    def _convolve(self, layout: Layout) -> None:
        """Make the convolutions."""
        raise NotImplementedError

    def _transform(self, x: Tensor) -> Tensor:
        """[B, D, n] through the transformer."""
        rows = x.transpose(1, 2)
        rotation = Rotation(rows.shape[1], self.head, rows, self.base)
        for block in self.blocks:
            rows = block(rows, rotation)
        return rows.transpose(1, 2)


class MimiEncoder(MimiStack):
    """Samples to latents; see :class:`MimiStack`."""

    def _convolve(self, layout: Layout) -> None:
        self.layers = layout.encoder()
        self.resample = PaddedConv(
            *(self.dim, self.dim, 2 * _LAST_STRIDE),
            stride=_LAST_STRIDE,
            padding="replicate",
            bias=False,
        )

    def forward(self, wave: Tensor) -> Tensor:
        """float [B, T], full scale 1 -> latents [B, ceil(T / hop), D]."""
        if wave.shape[1] == 0:
            return wave.new_zeros(len(wave), 0, self.dim)
        latents: Tensor = self.resample(self._transform(self.layers(wave[:, None])))
        return latents.transpose(1, 2)


class MimiDecoder(MimiStack):
    """Latents to samples: the mirror of :class:`MimiEncoder`, with the same arguments."""

    def _convolve(self, layout: Layout) -> None:
        self.resample = TrimmedUp(self.dim, self.dim, _LAST_STRIDE, causal=True, depthwise=True)
        self.layers = layout.decoder()

    def forward(self, latents: Tensor) -> Tensor:
        """[B, n, D] -> float [B, n * hop]."""
        if latents.shape[1] == 0:
            return latents.new_zeros(len(latents), 0)
        wave: Tensor = self.layers(self._transform(self.resample(latents.transpose(1, 2))))
        return wave[:, 0]
