"""What all sequence stacks share: two kinds of sequences, places in them, latents by number.

A sequence is real-valued, float [B, T, C], or made of symbols, int64 [B, T], each in [0, V). The
last symbol, V - 1, ends a sequence: it is part of it, so a decoder that has learned the data says
by itself where to stop. Real values have no such mark; whoever decodes them gives the lengths, or
gets the length that the decoder was built for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vqtok.nn.conv import Stack
from vqtok.nn.generation import Choose, Generated
from vqtok.nn.masks import zero_padding


class SequenceStack(Stack):
    """What encoders and decoders share.

    Args:
        kind: the type in the config.
        channels: C of real values; or
        symbols: V, of which the last ends a sequence.
        settings: ``dim``, ``num_latents`` and whatever else is in the config.

    Attributes:
        num_latents: L.
        channels: C, or None for symbols.
        symbols: V, or None for real values.
    """

    def __init__(
        self, kind: str, *, channels: int | None, symbols: int | None, **settings: Any
    ) -> None:
        super().__init__()
        self.output_size = output_size(channels, symbols)
        check_sizes({key: value for key, value in settings.items() if isinstance(value, int)})
        self.config = stack_config(kind, **settings, channels=channels, symbols=symbols)
        self.dim = settings["dim"]
        self.num_latents: int = settings["num_latents"]
        self.channels = channels
        self.symbols = symbols


class SequenceEncoder(SequenceStack):
    """Sequences to a fixed number of latents each, whatever their length."""

    def forward(self, sequences: Tensor, mask: Tensor | None = None) -> Tensor:
        """float [B, T, C] or int64 [B, T], mask bool [B, T] -> latents [B, L, D]."""
        raise NotImplementedError


class SequenceDecoder(SequenceStack):
    """A fixed number of latents to sequences.

    Attributes:
        max_length: T at which generation stops at the latest.
        reads_target: whether training shows the decoder what it is to say, each position what
            comes before it (teacher forcing).
    """

    reads_target: ClassVar[bool]

    def __init__(self, kind: str, *, max_length: int, **settings: Any) -> None:
        super().__init__(kind, max_length=max_length, **settings)
        self.max_length = max_length

    def forward(self, latents: Tensor, target: Tensor) -> Tensor:
        """The outputs for sequences that are known, at once.

        Args:
            latents: float [B, L, D].
            target: float [B, T, C] or int64 [B, T]: what to say. Output t depends on no target
                from t on; without ``reads_target`` on none at all, only on T. Its padding must
                hold valid values (see ``zero_padding``).

        Returns:
            float [B, T, C], or logits [B, T, V].
        """
        raise NotImplementedError

    def generate(
        self, latents: Tensor, lengths: Tensor | None = None, choose: Choose | None = None
    ) -> Generated:
        """Sequences from latents alone.

        Args:
            latents: float [B, L, D].
            lengths: int64 [B], where to stop. Default: symbols stop at the end symbol, or at
                ``max_length``; real values at ``max_length``.
            choose: how outputs become values; default ``greedy``.
        """
        raise NotImplementedError


class SequenceEmbedding(nn.Module):
    """Values or symbols to vectors [B, T, width].

    Args:
        width: of a vector.
        channels: C of real values; or
        symbols: V.
    """

    def __init__(self, width: int, *, channels: int | None, symbols: int | None) -> None:
        super().__init__()
        self.channels = channels
        self.symbols = symbols
        size = output_size(channels, symbols)
        self.layer = nn.Linear(size, width) if symbols is None else nn.Embedding(size, width)

    def forward(self, sequences: Tensor, mask: Tensor | None = None) -> Tensor:
        """float [B, T, C] or int64 [B, T] -> [B, T, width], 0 where the mask is False."""
        sequences = zero_padding(sequences, mask)
        if self.symbols is not None:
            check_symbols(sequences, self.symbols)
            sequences = sequences.long()
        elif sequences.ndim != 3 or sequences.shape[2] != self.channels:
            raise ValueError(
                f"sequences must be float [B, T, {self.channels}], not "
                f"{sequences.dtype} {list(sequences.shape)}"
            )
        # Torch multiplies slices in another way, which may round differently.
        return zero_padding(self.layer(sequences.contiguous()), mask)


class LatentReader(nn.Module):
    """Latents [B, L, D] as vectors [B, L, width] that know their number.

    Args:
        dim: D.
        num_latents: L.
        width: of a vector.
    """

    def __init__(self, dim: int, num_latents: int, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(dim, width)
        self.numbers = nn.Parameter(torch.randn(num_latents, width))

    def forward(self, latents: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, width]; ValueError for another L or D."""
        expected = (len(self.numbers), self.layer.in_features)
        if latents.ndim != 3 or latents.shape[1:] != expected:
            raise ValueError(
                f"latents must be [B, {expected[0]}, {expected[1]}], not {list(latents.shape)}"
            )
        vectors: Tensor = self.layer(latents)
        return vectors + self.numbers


def position_codes(length: int, width: int, *, first: int = 0, longest: int = 10_000) -> Tensor:
    """Sines and cosines of each position, float32 [length, width] (Vaswani et al., 2017).

    Their periods go from 2 pi steps to 2 pi times ``longest`` (the paper's 10,000). In sequences
    much shorter than it most numbers hardly change, and positions are hard to tell apart.
    """
    place = torch.arange(first, first + length, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(longest) / width))
    codes = torch.zeros(length, width)
    codes[:, 0::2] = torch.sin(place * rate)
    codes[:, 1::2] = torch.cos(place * rate[: width // 2])
    return codes


def check_symbols(sequences: Tensor, symbols: int) -> None:
    """ValueError unless sequences are integers [B, T], each in [0, symbols)."""
    if sequences.ndim != 2 or sequences.is_floating_point() or sequences.dtype == torch.bool:
        raise ValueError(
            f"sequences must be integers [B, T], not {sequences.dtype} {list(sequences.shape)}"
        )
    if sequences.numel() == 0:
        return
    low, high = (int(bound) for bound in torch.aminmax(sequences))
    if low < 0 or high >= symbols:
        raise ValueError(f"symbols must be in 0..{symbols - 1}, got {low}..{high}")


def output_size(channels: int | None, symbols: int | None) -> int:
    """The size of an output: C or V, whichever is given; ValueError unless it is just one."""
    if channels is not None and symbols is None and channels >= 1:
        return channels
    if symbols is not None and channels is None and symbols >= 2:
        return symbols
    raise ValueError(
        f"give channels (at least 1) or symbols (at least 2), not {channels} and {symbols}"
    )


def stack_config(name: str, **arguments: Any) -> dict[str, Any]:
    """The config of a sequence stack; of ``channels`` and ``symbols`` only the one that is set."""
    return {"type": name} | {key: value for key, value in arguments.items() if value is not None}


def check_sizes(sizes: Mapping[str, int]) -> None:
    """ValueError unless all are at least 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, not {size}")
