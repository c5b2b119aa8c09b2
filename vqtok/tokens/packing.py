"""How the codes of one sample become bytes: one class per packing tier.

A sample's codes are stored codebook after codebook (a *plane* each, in C order over the dims), so
that the first q codebooks are a prefix of the sample's bytes.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vqtok.ops import bits as bit_ops
from vqtok.tokens.header import Header

Bytes = NDArray[np.uint8]
Codes = NDArray[np.int64]


class Packing(Protocol):
    """A packing tier, for the codebooks of one header.

    ``dtype``: safetensors dtype of the ``tokens`` tensor; ``unit``: bytes of one of its elements.
    """

    dtype: str
    unit: int

    def pack(self, codes: NDArray[Any]) -> list[bytes]:
        """The planes of codes [*dims, Q], each code in [0, K_q)."""

    def ends(self, dims: tuple[int, ...]) -> list[int]:
        """Where each of the Q planes of a sample ends, in bytes from the start of the sample."""

    def unpack(self, data: Bytes, dims: tuple[int, ...], num_codebooks: int) -> Codes:
        """codes int64 [*dims, num_codebooks] from the first planes; ValueError if not canonical."""


class Plain:
    """Whole unsigned integers, of the smallest of 8, 16 and 32 bits that holds every code."""

    def __init__(self, header: Header) -> None:
        width = max(header.bits_per_code)
        self.unit = 1 if width <= 8 else 2 if width <= 16 else 4
        self.dtype = f"U{8 * self.unit}"
        self._element = np.dtype(f"<u{self.unit}")
        self._num_codebooks = header.num_codebooks

    def pack(self, codes: NDArray[Any]) -> list[bytes]:
        return [codes[..., q].astype(self._element).tobytes() for q in range(codes.shape[-1])]

    def ends(self, dims: tuple[int, ...]) -> list[int]:
        plane = math.prod(dims) * self.unit
        return [plane * (q + 1) for q in range(self._num_codebooks)]

    def unpack(self, data: Bytes, dims: tuple[int, ...], num_codebooks: int) -> Codes:
        planes = data.view(self._element).reshape(num_codebooks, -1)
        return _channels_last(planes, dims)


class Bits:
    """ceil(log2 K) bits per code, least significant bit first; planes start on whole bytes."""

    dtype = "U8"
    unit = 1

    def __init__(self, header: Header) -> None:
        self._bits = header.bits_per_code

    def pack(self, codes: NDArray[Any]) -> list[bytes]:
        planes = np.moveaxis(codes, -1, 0).reshape(codes.shape[-1], -1)
        return [
            bit_ops.pack(plane, bits).tobytes()
            for plane, bits in zip(planes, self._bits, strict=True)
        ]

    def ends(self, dims: tuple[int, ...]) -> list[int]:
        count = math.prod(dims)
        return list(accumulate((count * bits + 7) // 8 for bits in self._bits))

    def unpack(self, data: Bytes, dims: tuple[int, ...], num_codebooks: int) -> Codes:
        count = math.prod(dims)
        planes = np.empty((num_codebooks, count), np.int64)
        start = 0
        for q, end in enumerate(self.ends(dims)[:num_codebooks]):
            padding = (end - start) * 8 - count * self._bits[q]
            if int(data[end - 1]) >> (8 - padding):
                raise ValueError(f"the padding bits of codebook {q} are not zero")
            planes[q] = bit_ops.unpack(data[start:end], self._bits[q], count)
            start = end
        return _channels_last(planes, dims)


def packing_of(header: Header) -> Packing:
    """The packing tier that ``header`` names."""
    return Bits(header) if header.packing == "bits" else Plain(header)


def _channels_last(planes: NDArray[Any], dims: tuple[int, ...]) -> Codes:
    codes: Codes = np.ascontiguousarray(planes.T, dtype=np.int64).reshape(*dims, len(planes))
    return codes
