"""Convolutions along a sequence: each latent is about a stretch of it, in order."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtok.nn.masks import check_mask
from vqtok.nn.parallel import AtOnceDecoder
from vqtok.nn.sequence import SequenceEmbedding, SequenceEncoder, position_codes
from vqtok.nn.temporal import ConvBlock


class Conv1dEncoder(SequenceEncoder):
    """Convolutions of three steps; then each latent is made of the steps of its stretch.

    The L stretches are of equal length, lie evenly over ``max_length`` steps and overlap as little
    as they can. So what a latent says hardly depends on what is far away, and a codebook has few
    things to tell apart (of text, with stretches of two steps, pairs of letters).

    Args:
        dim: D, the dimension of a latent.
        num_latents: L.
        channels: C of real values; or
        symbols: V, of which the last ends a sequence.
        width: of the layers.
        depth: residual blocks, each of which sees a step further to both sides.
        max_length: T of the longest sequence.
    """

    def __init__(
        self,
        dim: int,
        num_latents: int,
        *,
        channels: int | None = None,
        symbols: int | None = None,
        width: int = 128,
        depth: int = 2,
        max_length: int = 256,
    ) -> None:
        sizes = {"dim": dim, "num_latents": num_latents, "width": width, "depth": depth}
        sizes["max_length"] = max_length
        super().__init__("conv1d", **sizes, channels=channels, symbols=symbols)
        self.max_length = max_length
        self.stretches = stretches(max_length, num_latents)
        self.embedding = SequenceEmbedding(width, channels=channels, symbols=symbols)
        self.blocks = nn.Sequential(*(ConvBlock(width) for _ in range(depth)))
        self.to_latents = nn.Sequential(
            nn.Linear(self.stretches.shape[1] * width, width),
            nn.GELU(),
            nn.LayerNorm(width),
            nn.Linear(width, dim),
        )

    def forward(self, sequences: Tensor, mask: Tensor | None = None) -> Tensor:
        """float [B, T, C] or int64 [B, T], mask bool [B, T] -> latents [B, L, D].

        Raises:
            ValueError: there is data after ``max_length``.
        """
        check_mask(sequences, mask)
        if mask is not None:
            longest = int(mask.sum(1).max())
            sequences, mask = sequences[:, :longest], mask[:, :longest]
        check_length(sequences.shape[1], self.max_length)
        embedded = self.embedding(sequences, mask)
        x = self.blocks(F.pad(embedded, (0, 0, 0, self.max_length - embedded.shape[1])))
        latents: Tensor = self.to_latents(x[:, self.stretches.to(x.device)].flatten(2))
        return latents


class Conv1dDecoder(AtOnceDecoder):
    """The mirror of :class:`Conv1dEncoder`: each latent tells about its stretch, convolutions
    about the neighbourhood; where stretches overlap, both are heard.

    Args: as for :class:`Conv1dEncoder`.
    """

    def __init__(
        self,
        dim: int,
        num_latents: int,
        *,
        channels: int | None = None,
        symbols: int | None = None,
        width: int = 128,
        depth: int = 2,
        max_length: int = 256,
    ) -> None:
        sizes = {"dim": dim, "num_latents": num_latents, "width": width, "depth": depth}
        sizes["max_length"] = max_length
        super().__init__("conv1d", **sizes, channels=channels, symbols=symbols)
        self.width = width
        self.stretches = stretches(max_length, num_latents)
        self.from_latents = nn.Linear(dim, self.stretches.shape[1] * width)
        self.blocks = nn.Sequential(*(ConvBlock(width) for _ in range(depth)))
        self.to_output = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, self.output_size))

    def answer(self, latents: Tensor, length: int) -> Tensor:
        expected = (self.num_latents, self.dim)
        if latents.ndim != 3 or latents.shape[1:] != expected:
            raise ValueError(
                f"latents must be [B, {expected[0]}, {expected[1]}], not {list(latents.shape)}"
            )
        check_length(length, self.max_length)
        told = self.from_latents(latents).unflatten(2, (-1, self.width)).flatten(1, 2)
        places = position_codes(self.max_length, self.width, longest=self.max_length).to(told)
        x = places.expand(len(told), -1, -1)
        x = x.index_add(1, self.stretches.flatten().to(x.device), told)
        output: Tensor = self.to_output(self.blocks(x)[:, :length])
        return output


def stretches(length: int, count: int) -> Tensor:
    """The steps of each latent, int64 [count, steps]: together all of ``length``."""
    steps = -(-length // count)
    first = torch.linspace(0, length - steps, count, dtype=torch.float64).round().long()
    return first[:, None] + torch.arange(steps)


def check_length(length: int, most: int) -> None:
    """ValueError for more steps than the stack was built for."""
    if length > most:
        raise ValueError(f"sequences have {length} steps, the model was built for at most {most}")
