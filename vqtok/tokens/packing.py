"""How the codes of one sample become bytes: one class per packing tier.

A sample's codes are stored codebook after codebook (a *plane* each, in C order over the dims), so
that the first q codebooks are a prefix of the sample's bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vqtok.errors import DataError
from vqtok.ops import bits as bit_ops
from vqtok.tokens.header import SMALL_VERSION, Header
from vqtok.tokens.models import Adaptive, Alone, Model, grid_of
from vqtok.tokens.prior import find_prior

Bytes = NDArray[np.uint8]
Codes = NDArray[np.int64]


class Packing(Protocol):
    """A packing tier, for the codebooks of one header.

    ``dtype``: safetensors dtype of the ``tokens`` tensor; ``unit``: bytes of one of its elements;
    ``has_sizes``: whether the sizes of planes depend on the codes, and are stored.
    """

    dtype: str
    unit: int
    has_sizes: bool

    def pack(self, codes: NDArray[Any]) -> list[bytes]:
        """The planes of codes [*dims, Q], each code in [0, K_q)."""

    def ends(self, dims: tuple[int, ...], sizes: Sequence[int]) -> list[int]:
        """Where each of the Q planes of a sample ends, in bytes from the start of the sample.

        ``sizes``: the sample's row of ``plane_sizes``, where the tier has one, else empty;
        ValueError when they cannot be.
        """

    def unpack(self, data: Bytes, dims: tuple[int, ...], ends: Sequence[int]) -> Codes:
        """codes int64 [*dims, len(ends)] from the first planes; ValueError if not canonical."""


class Plain:
    """Whole unsigned integers, of the smallest of 8, 16 and 32 bits that holds every code."""

    has_sizes = False

    def __init__(self, header: Header) -> None:
        width = max(header.bits_per_code)
        self.unit = 1 if width <= 8 else 2 if width <= 16 else 4
        self.dtype = f"U{8 * self.unit}"
        self._element = np.dtype(f"<u{self.unit}")
        self._num_codebooks = header.num_codebooks

    def pack(self, codes: NDArray[Any]) -> list[bytes]:
        return [codes[..., q].astype(self._element).tobytes() for q in range(codes.shape[-1])]

    def ends(self, dims: tuple[int, ...], sizes: Sequence[int]) -> list[int]:
        plane = math.prod(dims) * self.unit
        return [plane * (q + 1) for q in range(self._num_codebooks)]

    def unpack(self, data: Bytes, dims: tuple[int, ...], ends: Sequence[int]) -> Codes:
        planes = data.view(self._element).reshape(len(ends), -1)
        return _channels_last(planes, dims)


class Bits:
    """ceil(log2 K) bits per code, least significant bit first; planes start on whole bytes."""

    dtype = "U8"
    unit = 1
    has_sizes = False

    def __init__(self, header: Header) -> None:
        self._bits = header.bits_per_code

    def pack(self, codes: NDArray[Any]) -> list[bytes]:
        planes = np.moveaxis(codes, -1, 0).reshape(codes.shape[-1], -1)
        return [
            bit_ops.pack(plane, bits).tobytes()
            for plane, bits in zip(planes, self._bits, strict=True)
        ]

    def ends(self, dims: tuple[int, ...], sizes: Sequence[int]) -> list[int]:
        count = math.prod(dims)
        return list(accumulate(bit_ops.packed_size(count, bits) for bits in self._bits))

    def unpack(self, data: Bytes, dims: tuple[int, ...], ends: Sequence[int]) -> Codes:
        count = math.prod(dims)
        planes = np.empty((len(ends), count), np.int64)
        for q, (start, end) in enumerate(pairwise((0, *ends))):
            planes[q] = _unpack_bits(data[start:end], self._bits[q], count, q)
        return _channels_last(planes, dims)


def _unpack_bits(data: Bytes, bits: int, count: int, q: int) -> NDArray[np.int64]:
    padding = len(data) * 8 - count * bits
    if int(data[-1]) >> (8 - padding):
        raise ValueError(f"the padding bits of codebook {q} are not zero")
    return bit_ops.unpack(data, bits, count)


class Entropy:
    """Each plane as a stream of the entropy coder, or as bits where that is no smaller."""

    dtype = "U8"
    unit = 1
    has_sizes = True

    def __init__(self, header: Header, folder: Path) -> None:
        self._bits = Bits(header)
        self._widths = header.bits_per_code
        self._header = header
        self._folder = folder

    @cached_property
    def _model(self) -> Model:
        header = self._header
        if not header.prior:
            return Adaptive(header.codebook_sizes)
        prior = find_prior(header.prior, self._folder)
        if prior.codebook_sizes[: header.num_codebooks] != header.codebook_sizes:
            raise DataError(
                f"prior {header.prior[:12]} is for codebooks of {list(prior.codebook_sizes)} "
                f"codes, the dataset has {list(header.codebook_sizes)}"
            )
        return prior if header.format_version >= SMALL_VERSION else Alone(prior.networks)

    def pack(self, codes: NDArray[Any]) -> list[bytes]:
        *dims, num_codebooks = codes.shape
        planes = np.ascontiguousarray(
            np.moveaxis(codes, -1, 0).reshape(num_codebooks, *grid_of(dims)), np.uint32
        )
        least = _least_bytes(math.prod(dims))
        coded = [stream.ljust(least, b"\0") for stream in self._model.encode_planes(planes)]
        pairs = zip(self._bits.pack(codes), coded, strict=True)
        return [min(bits, stream, key=len) for bits, stream in pairs]

    def ends(self, dims: tuple[int, ...], sizes: Sequence[int]) -> list[int]:
        count = math.prod(dims)
        least = _least_bytes(count)
        for q, (size, bits) in enumerate(zip(sizes, self._widths, strict=True)):
            most = bit_ops.packed_size(count, bits)
            if not least <= size <= most:
                raise ValueError(
                    f"plane {q} has {size} bytes for {count} codes, not {least} to {most}"
                )
        return list(accumulate(sizes))

    def unpack(self, data: Bytes, dims: tuple[int, ...], ends: Sequence[int]) -> Codes:
        count = math.prod(dims)
        planes = np.empty((len(ends), *grid_of(dims)), np.uint32)
        for q, (start, end) in enumerate(pairwise((0, *ends))):
            width = self._widths[q]
            if end - start == bit_ops.packed_size(count, width):
                plane = _unpack_bits(data[start:end], width, count, q)
                size = self._header.codebook_sizes[q]
                if plane.max() >= size:  # the planes after this one are predicted from it
                    raise ValueError(f"code {plane.max()} in codebook {q} of size {size}")
                planes[q] = plane.reshape(planes.shape[1:])
            else:
                padded = end - start == _least_bytes(count)
                stream = data[start:end].tobytes()
                self._model.decode_plane(planes, q, stream.rstrip(b"\0") if padded else stream)
        return _channels_last(planes.reshape(len(ends), -1), dims)


def _least_bytes(count: int) -> int:
    """Of a coded plane: what a reader allocates stays in proportion to the file."""
    return (count + 255) // 256


def packing_of(header: Header, folder: Path = Path()) -> Packing:
    """The packing tier that ``header`` names; ``folder`` is where the dataset's prior would be."""
    if header.packing == "entropy":
        return Entropy(header, folder)
    return Bits(header) if header.packing == "bits" else Plain(header)


def _channels_last(planes: NDArray[Any], dims: tuple[int, ...]) -> Codes:
    last = planes if len(planes) == 1 else planes.T
    codes: Codes = np.ascontiguousarray(last, dtype=np.int64).reshape(*dims, len(planes))
    return codes
