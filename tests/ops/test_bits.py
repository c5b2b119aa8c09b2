"""Bit packing: the stream's definition, the torch and numpy faces, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vqtok import ops
from vqtok.ops import bits as bit_ops
from vqtok.ops import native, reference


@st.composite
def streams(draw: st.DrawFn) -> tuple[int, list[int]]:
    bits = draw(st.integers(1, 32))
    codes = draw(st.lists(st.integers(0, 2**bits - 1), max_size=60))
    return bits, codes


def by_definition(codes: list[int], bits: int) -> bytes:
    stream = sum(code << (i * bits) for i, code in enumerate(codes))
    return stream.to_bytes((len(codes) * bits + 7) // 8, "little")


@settings(deadline=None)
@given(streams())
def test_every_version_writes_the_defined_bytes(case: tuple[int, list[int]]) -> None:
    bits, codes = case
    array = np.array(codes, np.int64)
    want = np.frombuffer(by_definition(codes, bits), np.uint8)
    for packed in (
        bit_ops.pack(array, bits),
        bit_ops._pack_numpy(array, bits),
        ops.pack_bits(torch.tensor(codes, dtype=torch.int64), bits).numpy(),
        reference.pack_bits(torch.tensor(codes, dtype=torch.int64), bits).numpy(),
    ):
        assert packed.dtype == np.uint8
        assert np.array_equal(packed, want)


@settings(deadline=None)
@given(streams(), st.binary(max_size=5))
def test_every_version_reads_them_back(case: tuple[int, list[int]], trailing: bytes) -> None:
    bits, codes = case
    packed = np.frombuffer(by_definition(codes, bits) + trailing, np.uint8)
    tensor = torch.from_numpy(packed.copy())
    for back in (
        bit_ops.unpack(packed, bits, len(codes)),
        bit_ops._unpack_numpy(packed, bits, len(codes)),
        ops.unpack_bits(tensor, bits, len(codes)).numpy(),
        reference.unpack_bits(tensor, bits, len(codes)).numpy(),
    ):
        assert back.dtype == np.int64
        assert back.tolist() == codes


@pytest.mark.parametrize("bits", [1, 7, 10, 13, 16, 17, 32])
@pytest.mark.parametrize("threads", [1, 3])
def test_long_streams(bits: int, threads: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 2**bits, 200_003)
    module = native.load()
    assert module is not None
    packed = np.empty(bit_ops.packed_size(len(codes), bits), np.uint8)
    module.pack_bits_cpu(codes.ctypes.data, 8, True, len(codes), bits, packed.ctypes.data, threads)
    assert np.array_equal(packed, bit_ops._pack_numpy(codes, bits))
    back = np.empty_like(codes)
    module.unpack_bits_cpu(packed.ctypes.data, len(codes), bits, back.ctypes.data, threads)
    assert np.array_equal(back, codes)


@pytest.mark.parametrize("dtype", ["i1", "u1", "<i2", ">u2", "u4", ">i4", "u8", ">i8"])
def test_integer_types(dtype: str) -> None:
    codes = np.array([3, 0, 100, 127, 64], dtype)
    strided = np.repeat(codes, 2)[::2]
    assert bit_ops.pack(strided, 7).tobytes() == by_definition(codes.tolist(), 7)
    codes[3] = 5
    codes[2] = -1 if dtype[-2] == "i" else 8
    for pack in (bit_ops.pack, bit_ops._pack_numpy):
        with pytest.raises(ValueError, match=rf"codes\[2\] is {codes[2]}, outside \[0, 8\)"):
            pack(codes, 3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.uint16])
def test_torch_integer_types(dtype: torch.dtype) -> None:
    codes = torch.tensor([3, 0, 100, 127, 64]).to(dtype)
    assert bytes(ops.pack_bits(codes, 7).tolist()) == by_definition([3, 0, 100, 127, 64], 7)
    assert ops.pack_bits(torch.zeros(8).long().expand(8), 4).tolist() == [0] * 4


def test_wrong_arguments() -> None:
    codes, packed = np.arange(4), np.zeros(3, np.uint8)
    for bits in (0, 33, -1):
        with pytest.raises(ValueError, match=f"bits must be 1 to 32, got {bits}"):
            bit_ops.pack(codes, bits)
        with pytest.raises(ValueError, match=f"bits must be 1 to 32, got {bits}"):
            ops.unpack_bits(torch.from_numpy(packed), bits, 1)
    with pytest.raises(ValueError, match=r"integers \[N\], got int64 \[2, 2\]"):
        bit_ops.pack(codes.reshape(2, 2), 4)
    with pytest.raises(ValueError, match=r"integers \[N\], got float64"):
        bit_ops.pack(codes.astype(float), 4)
    with pytest.raises(ValueError, match=r"integers \[N\], got torch.float32"):
        ops.pack_bits(torch.zeros(3), 4)
    with pytest.raises(ValueError, match="9 codes of 3 bits need 4 bytes, got 3"):
        bit_ops.unpack(packed, 3, 9)
    with pytest.raises(ValueError, match="need 1152921504606846976 bytes"):
        bit_ops.unpack(packed, 1, 2**63)
    with pytest.raises(ValueError, match="count must not be negative"):
        bit_ops.unpack(packed, 3, -1)
    with pytest.raises(ValueError, match="uint8"):
        bit_ops.unpack(packed.view(np.int8), 3, 1)
    with pytest.raises(ValueError, match=r"codes\[3\] is 3, outside \[0, 2\) for 1 bits"):
        ops.pack_bits(torch.tensor([0, 1, 1, 3]), 1)
