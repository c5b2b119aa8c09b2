"""What the entropy coder believes about codes: one class per model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from vqtok.ops import entropy


class Model(Protocol):
    """Predicts the codes of a plane from those before them and from earlier planes."""

    def encode(self, planes: entropy.Planes) -> list[bytes]:
        """The streams of uint32 [q, rows, columns], codes of the first q codebooks."""

    def decode(self, planes: entropy.Planes, q: int, stream: bytes) -> None:
        """Fill plane q, those before it being known; ValueError for what no encoder makes."""


class Adaptive:
    """Learns from the sample alone, while coding it."""

    def __init__(self, codebook_sizes: Sequence[int]) -> None:
        self._sizes = tuple(codebook_sizes)

    def encode(self, planes: entropy.Planes) -> list[bytes]:
        return entropy.adaptive_encode(planes, self._sizes[: len(planes)])

    def decode(self, planes: entropy.Planes, q: int, stream: bytes) -> None:
        entropy.adaptive_decode(planes, q, self._sizes[q], stream)
