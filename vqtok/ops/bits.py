"""Fixed-width bit packing of numpy arrays, without torch.

Code i occupies bits ``[i*bits, (i+1)*bits)`` of the stream, low bit first; bit j of the stream is
bit ``j % 8`` of byte ``j // 8``; the unused bits of the last byte are zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtok.ops import native

MAX_BITS = 32


def packed_size(count: int, bits: int) -> int:
    """Bytes that `count` codes of `bits` bits occupy."""
    return (count * bits + 7) // 8


def pack(codes: NDArray[np.integer[Any]], bits: int) -> NDArray[np.uint8]:
    """Packs codes into bytes.

    Args:
        codes: integers [N], each in [0, 2**bits)
        bits: width of a code, 1 to 32

    Returns:
        uint8 [ceil(N * bits / 8)]

    Raises:
        ValueError: wrong shape, dtype or width, or a code that does not fit.
    """
    check_bits(bits)
    if codes.ndim != 1 or codes.dtype.kind not in "iu":
        raise ValueError(f"codes must be integers [N], got {codes.dtype} {list(codes.shape)}")
    codes = np.ascontiguousarray(codes, dtype=codes.dtype.newbyteorder("="))
    module = native.load()
    if module is None:
        return _pack_numpy(codes, bits)
    packed = np.empty(packed_size(len(codes), bits), np.uint8)
    signed = codes.dtype.kind == "i"
    bad = module.pack_bits_cpu(
        *(codes.ctypes.data, codes.itemsize, signed, len(codes), bits),
        *(packed.ctypes.data, native.num_threads()),
    )
    if bad >= 0:
        raise misfit(bad, int(codes[bad]), bits)
    return packed


def unpack(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.int64]:
    """Reads codes back from bytes.

    Args:
        packed: uint8 [M], M >= ceil(count * bits / 8); what follows is ignored
        bits: width of a code, 1 to 32
        count: number of codes N

    Returns:
        int64 [N], each in [0, 2**bits)

    Raises:
        ValueError: wrong shape, dtype, width or count, or too few bytes.
    """
    check_bits(bits)
    if packed.ndim != 1 or packed.dtype != np.uint8:
        raise ValueError(f"packed must be uint8 [M], got {packed.dtype} {list(packed.shape)}")
    check_packed_size(len(packed), bits, count)
    packed = np.ascontiguousarray(packed)
    module = native.load()
    if module is None:
        return _unpack_numpy(packed, bits, count)
    codes = np.empty(count, np.int64)
    module.unpack_bits_cpu(packed.ctypes.data, count, bits, codes.ctypes.data, native.num_threads())
    return codes


def check_bits(bits: int) -> None:
    if not 1 <= bits <= MAX_BITS:
        raise ValueError(f"bits must be 1 to {MAX_BITS}, got {bits}")


def check_packed_size(size: int, bits: int, count: int) -> None:
    if count < 0:
        raise ValueError(f"count must not be negative, got {count}")
    if size < packed_size(count, bits):
        raise ValueError(
            f"{count} codes of {bits} bits need {packed_size(count, bits)} bytes, got {size}"
        )


def misfit(position: int, code: int, bits: int) -> ValueError:
    return ValueError(f"codes[{position}] is {code}, outside [0, {2**bits}) for {bits} bits")


def _pack_numpy(codes: NDArray[np.integer[Any]], bits: int) -> NDArray[np.uint8]:
    wide = codes.astype(np.uint64)  # negative codes wrap to huge ones
    bad = np.flatnonzero(wide >> np.uint64(bits))
    if bad.size:
        raise misfit(int(bad[0]), int(codes[bad[0]]), bits)
    table = (wide[:, None] >> np.arange(bits, dtype=np.uint64)) & np.uint64(1)
    return np.packbits(table.astype(np.uint8), axis=None, bitorder="little")


def _unpack_numpy(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.int64]:
    stream = np.unpackbits(packed, count=count * bits, bitorder="little")
    weights = np.int64(1) << np.arange(bits, dtype=np.int64)
    return stream.reshape(count, bits).astype(np.int64) @ weights
