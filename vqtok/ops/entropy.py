"""Entropy coding of numpy arrays of codes, without torch.

A *plane* holds the codes of one codebook in one sample, a grid of rows and columns. It is coded
given the planes of the codebooks before it. The bytes are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vqtok.ops import adaptive, native

MAX_CODEBOOK_SIZE = adaptive.MAX_CODEBOOK_SIZE
"""Largest codebook whose codes the adaptive model takes."""

Planes = NDArray[np.uint32]


def adaptive_encode(planes: Planes, codebook_sizes: Sequence[int]) -> list[bytes]:
    """Code planes with the adaptive model.

    Args:
        planes: uint32 [Q, rows, columns], those of codebook q in [0, codebook_sizes[q])
        codebook_sizes: Q of them, each in [1, MAX_CODEBOOK_SIZE]

    Returns:
        A stream for each plane, which depends on it and on those before it. No stream ends with a
        zero byte.
    """
    _check(planes, codebook_sizes)
    planes = np.ascontiguousarray(planes)
    highest = planes.reshape(len(planes), -1).max(axis=1, initial=0)
    for q, (high, size) in enumerate(zip(highest.tolist(), codebook_sizes, strict=True)):
        if high >= size:
            raise ValueError(f"code {high} in plane {q}, its codebook has size {size}")
    module = native.load()
    if module is None:
        return [adaptive.encode(planes[: q + 1], size) for q, size in enumerate(codebook_sizes)]
    streams: list[bytes] = module.adaptive_encode_cpu(
        planes.ctypes.data, *planes.shape[1:], list(codebook_sizes), native.num_threads()
    )
    return streams


def adaptive_decode(planes: Planes, q: int, codebook_size: int, stream: bytes) -> None:
    """Fill plane q from its stream; any bytes give codes in [0, codebook_size).

    Args:
        planes: uint32 [Q, rows, columns], contiguous, of which those before q are known
        q: which plane to fill
        codebook_size: in [1, MAX_CODEBOOK_SIZE]
        stream: as :func:`adaptive_encode` makes it

    Raises:
        ValueError: a stream that no encoder makes, with bytes left over or a zero at its end.
    """
    _check(planes, (codebook_size,) * len(planes))
    if not 0 <= q < len(planes):
        raise ValueError(f"there is no plane {q} of {len(planes)}")
    if not planes.flags.c_contiguous or not planes.flags.writeable:
        raise ValueError("planes must be contiguous and writeable")
    module = native.load()
    if module is None:
        whole = adaptive.decode(planes[: q + 1], codebook_size, stream)
    else:
        address, grid = planes.ctypes.data, planes.shape[1:]
        whole = module.adaptive_decode_cpu(address, q, *grid, codebook_size, stream)
    if not whole or stream.endswith(b"\0"):
        raise ValueError(f"the stream of codebook {q} has bytes left over")


def _check(planes: Planes, codebook_sizes: Sequence[int]) -> None:
    if planes.ndim != 3 or planes.dtype != np.uint32 or len(planes) != len(codebook_sizes):
        raise ValueError(
            f"planes must be uint32 [{len(codebook_sizes)}, rows, columns], got {planes.dtype} "
            f"{list(planes.shape)}"
        )
    for size in codebook_sizes:
        if not 1 <= size <= MAX_CODEBOOK_SIZE:
            raise ValueError(f"codebook_sizes must be in [1, {MAX_CODEBOOK_SIZE}], got {size}")
