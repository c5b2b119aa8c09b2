"""Decoders that say all values of a sequence at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vqtok.nn.attention import CrossBlock, SelfBlock
from vqtok.nn.generation import Choose, Generated, as_generated, greedy, up_to_end
from vqtok.nn.masks import mask_of
from vqtok.nn.sequence import (
    LatentReader,
    SequenceDecoder,
    position_codes,
)


class AtOnceDecoder(SequenceDecoder):
    """Says all values at once, each by the latents and its place alone."""

    reads_target = False

    def answer(self, latents: Tensor, length: int) -> Tensor:
        """The first ``length`` outputs: [B, L, D] -> [B, length, C] or logits [B, length, V]."""
        raise NotImplementedError

    def forward(self, latents: Tensor, target: Tensor) -> Tensor:
        """[B, L, D] and a target, of which only the length counts -> [B, T, C] or [B, T, V]."""
        return self.answer(latents, target.shape[1])

    @torch.no_grad()
    def generate(
        self, latents: Tensor, lengths: Tensor | None = None, choose: Choose | None = None
    ) -> Generated:
        """Sequences from latents alone, see :class:`SequenceDecoder`."""
        choose = choose or greedy(self.symbols)
        length = self.max_length if lengths is None else int(lengths.max())
        values = choose(self.answer(latents, length))
        if lengths is not None:
            return as_generated(values, mask_of(lengths.to(values.device)))
        if self.symbols is None:
            return as_generated(values, torch.ones_like(values[..., 0], dtype=torch.bool))
        mask = up_to_end(values, self.symbols)
        longest = int(mask.sum(1).max())
        return as_generated(values[:, :longest], mask[:, :longest])


class ParallelDecoder(AtOnceDecoder):
    """Says all values at once: each position is a question to the latents.

    No position sees another (as in Perceiver IO: Jaegle et al., 2021, arXiv:2107.14795), so a
    value depends on the latents and its place alone, not on the length that was asked for.

    Args: as for :class:`TransformerDecoder`; half of the blocks, rounded down, work on the latents
        before the others ask them.
    """

    def __init__(
        self,
        dim: int,
        num_latents: int,
        *,
        channels: int | None = None,
        symbols: int | None = None,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        max_length: int = 256,
        longest_period: int = 10_000,
    ) -> None:
        sizes = {"dim": dim, "num_latents": num_latents, "width": width, "depth": depth}
        sizes |= {"heads": heads, "max_length": max_length, "longest_period": longest_period}
        super().__init__("parallel", **sizes, channels=channels, symbols=symbols)
        self.longest_period = longest_period
        self.latent_reader = LatentReader(dim, num_latents, width)
        self.latent_blocks = nn.ModuleList(SelfBlock(width, heads) for _ in range(depth // 2))
        self.question = nn.Linear(width, width)
        self.blocks = nn.ModuleList(CrossBlock(width, heads) for _ in range(depth - depth // 2))
        self.to_output = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, self.output_size))

    def answer(self, latents: Tensor, length: int) -> Tensor:
        source = self.latent_reader(latents)
        for block in self.latent_blocks:
            source = block(source)
        places = position_codes(length, self.question.in_features, longest=self.longest_period)
        x = self.question(places.to(self.question.weight)).expand(len(latents), -1, -1)
        for block in self.blocks:
            x = block(x, source)
        output: Tensor = self.to_output(x)
        return output
