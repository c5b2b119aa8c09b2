"""Transformer encoder with latent tokens, and autoregressive Transformer decoder."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtok.nn.attention import CausalBlock, SelfBlock
from vqtok.nn.generation import Choose, Generated, generate_stepwise
from vqtok.nn.masks import check_mask
from vqtok.nn.sequence import (
    LatentReader,
    SequenceDecoder,
    SequenceEmbedding,
    SequenceEncoder,
    position_codes,
)


class TransformerEncoder(SequenceEncoder):
    """A sequence and L learned latent tokens look at each other; the latent tokens are kept.

    So L x D numbers are all that a decoder gets, however long the sequence was (as TiTok does for
    images: Yu et al., 2024, arXiv:2406.07550).

    Args:
        dim: D, the dimension of a latent.
        num_latents: L.
        channels: C of real values; or
        symbols: V, of which the last ends a sequence.
        width: of the layers.
        depth: blocks.
        heads: attention heads; ``width`` is a multiple of them.
        max_length: of the sequences to expect; longer ones can be coded, but less well.
        longest_period: of the codes of positions, see :func:`position_codes`; best is
            ``max_length``.
    """

    def __init__(
        self,
        dim: int,
        num_latents: int,
        *,
        channels: int | None = None,
        symbols: int | None = None,
        width: int = 128,
        depth: int = 3,
        heads: int = 4,
        max_length: int = 256,
        longest_period: int = 10_000,
    ) -> None:
        sizes = {"dim": dim, "num_latents": num_latents, "width": width, "depth": depth}
        sizes |= {"max_length": max_length, "heads": heads, "longest_period": longest_period}
        super().__init__("transformer", **sizes, channels=channels, symbols=symbols)
        self.longest_period = longest_period
        self.embedding = SequenceEmbedding(width, channels=channels, symbols=symbols)
        # At first, the latent tokens are like places spread over the longest sequences.
        places = torch.linspace(0, max_length - 1, num_latents).round().long()
        self.latent_tokens = nn.Parameter(
            position_codes(max_length, width, longest=longest_period)[places]
            + 0.5 * torch.randn(num_latents, width)
        )
        self.blocks = nn.ModuleList(SelfBlock(width, heads) for _ in range(depth))
        self.to_latents = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim))

    def forward(self, sequences: Tensor, mask: Tensor | None = None) -> Tensor:
        """float [B, T, C] or int64 [B, T], mask bool [B, T] -> latents [B, L, D]."""
        check_mask(sequences, mask)
        embedded = self.embedding(sequences, mask)
        places = position_codes(*embedded.shape[1:], longest=self.longest_period)
        embedded = embedded + places.to(embedded)
        tokens = self.latent_tokens.to(embedded.dtype).expand(len(embedded), -1, -1)
        x = torch.cat([tokens, embedded], dim=1)
        if mask is not None:
            mask = F.pad(mask, (self.num_latents, 0), value=True)
        for block in self.blocks:
            x = block(x, mask)
        latents: Tensor = self.to_latents(x[:, : self.num_latents])
        return latents


class TransformerDecoder(SequenceDecoder):
    """Says one value after the other, looking at the values before it and at the latents.

    Args:
        dim: D, the dimension of a latent.
        num_latents: L.
        channels: C of real values; or
        symbols: V, of which the last ends a sequence.
        width: of the layers.
        depth: blocks.
        heads: attention heads; ``width`` is a multiple of them.
        max_length: where generation stops at the latest.
        longest_period: as for :class:`TransformerEncoder`.
    """

    reads_target = True

    def __init__(
        self,
        dim: int,
        num_latents: int,
        *,
        channels: int | None = None,
        symbols: int | None = None,
        width: int = 128,
        depth: int = 3,
        heads: int = 4,
        max_length: int = 256,
        longest_period: int = 10_000,
    ) -> None:
        sizes = {"dim": dim, "num_latents": num_latents, "width": width, "depth": depth}
        sizes |= {"heads": heads, "max_length": max_length, "longest_period": longest_period}
        super().__init__("transformer", **sizes, channels=channels, symbols=symbols)
        self.longest_period = longest_period
        self.latent_reader = LatentReader(dim, num_latents, width)
        self.embedding = SequenceEmbedding(width, channels=channels, symbols=symbols)
        self.start = nn.Parameter(torch.randn(width) * width**-0.5)
        self.blocks = nn.ModuleList(CausalBlock(width, heads) for _ in range(depth))
        self.to_output = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, self.output_size))

    def forward(self, latents: Tensor, target: Tensor) -> Tensor:
        """[B, L, D] and what to say -> [B, T, C] or logits [B, T, V]."""
        source = self.latent_reader(latents)
        before = self.embedding(target[:, :-1])
        start = self.start.to(before.dtype).expand(len(latents), 1, -1)
        x = torch.cat([start, before], dim=1)
        x = x + position_codes(*x.shape[1:], longest=self.longest_period).to(x)
        for block in self.blocks:
            x = block(x, source)
        output: Tensor = self.to_output(x)
        return output

    def begin(self, latents: Tensor) -> Any:
        """The state before the first position."""
        return 0, self.latent_reader(latents), [None] * len(self.blocks)

    def step(self, previous: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        """The output [B, C] or [B, V] after the value before it."""
        place, source, pasts = state
        if previous is None:
            x = self.start.expand(len(source), 1, -1)
        else:
            x = self.embedding(previous[:, None])
        x = x + position_codes(1, x.shape[2], first=place, longest=self.longest_period).to(x)
        news = []
        for block, past in zip(self.blocks, pasts, strict=True):
            x, new = cast(CausalBlock, block).step(x, past, source)
            news.append(new)
        return self.to_output(x)[:, 0], (place + 1, source, news)

    def generate(
        self, latents: Tensor, lengths: Tensor | None = None, choose: Choose | None = None
    ) -> Generated:
        """Sequences from latents alone, see :class:`SequenceDecoder`."""
        return generate_stepwise(self, latents, lengths, choose)
