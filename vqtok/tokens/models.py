"""What the entropy coder believes about codes: one class per model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from vqtok.ops import entropy
from vqtok.ops.prior import Networks


class Model(Protocol):
    """Predicts the codes of a plane from those before them and from earlier planes."""

    def encode_planes(self, planes: entropy.Planes) -> list[bytes]:
        """The streams of uint32 [q, rows, columns], codes of the first q codebooks."""

    def decode_plane(self, planes: entropy.Planes, q: int, stream: bytes) -> None:
        """Fill plane q, those before it being known; ValueError for what no encoder makes."""


class Adaptive:
    """Learns from the sample alone, while coding it."""

    def __init__(self, codebook_sizes: Sequence[int]) -> None:
        self._sizes = tuple(codebook_sizes)

    def encode_planes(self, planes: entropy.Planes) -> list[bytes]:
        return entropy.adaptive_encode(planes, self._sizes[: len(planes)])

    def decode_plane(self, planes: entropy.Planes, q: int, stream: bytes) -> None:
        entropy.adaptive_decode(planes, q, self._sizes[q], stream)


class Alone:
    """A prior that learns nothing from the sample, as format version 1 has it."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks

    def encode_planes(self, planes: entropy.Planes) -> list[bytes]:
        return self._networks.encode(np.ascontiguousarray(planes), mixed=False)

    def decode_plane(self, planes: entropy.Planes, q: int, stream: bytes) -> None:
        check_whole(self._networks.decode(planes, q, stream, mixed=False), q, stream)


def check_whole(whole: bool, q: int, stream: bytes) -> None:
    """ValueError for a stream that no encoder makes."""
    if not whole or stream.endswith(b"\0"):
        raise ValueError(f"the stream of codebook {q} has bytes left over")


def grid_of(dims: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of a plane: the last axis is the columns, if there are several."""
    return (dims[0], 1) if len(dims) == 1 else (math.prod(dims[:-1]), dims[-1])
