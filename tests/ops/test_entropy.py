"""The range coder and the adaptive model: round trips, the plain oracle, and what is refused."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqtok.ops import adaptive, entropy, native
from vqtok.ops.range_coder import RangeDecoder, RangeEncoder

needs_native = pytest.mark.skipif(not native.native_available(), reason="no native module")


@st.composite
def symbols(draw):
    """(below, frequency, total) of several symbols, and bits as (one, value)."""
    steps = []
    for _ in range(draw(st.integers(0, 60))):
        if draw(st.booleans()):
            total = draw(st.integers(1, (1 << 32) - 1))
            below = draw(st.integers(0, total - 1))
            steps.append((below, draw(st.integers(1, total - below)), total))
        else:
            steps.append((draw(st.integers(1, 65535)), draw(st.booleans())))
    return steps


@given(symbols())
@settings(deadline=None, max_examples=200)
def test_the_range_coder_gives_back_what_it_took(steps) -> None:
    coder = RangeEncoder()
    for step in steps:
        coder.symbol(*step) if len(step) == 3 else coder.bit(*step)
    stream = coder.finish()
    assert not stream.endswith(b"\0")
    decoder = RangeDecoder(stream)
    for step in steps:
        if len(step) == 3:
            below, frequency, total = step
            assert below <= decoder.position(total) < below + frequency
            decoder.take(below, frequency)
        else:
            assert decoder.bit(step[0], 0) == step[1]
    assert not decoder.has_rest
    information = sum(
        -np.log2(step[1] / step[2])
        if len(step) == 3
        else -np.log2((step[0] if step[1] else 65536 - step[0]) / 65536)
        for step in steps
    )
    assert len(stream) * 8 <= information + 8.01


def correlated(rng: np.random.Generator, shape: tuple[int, ...], size: int) -> entropy.Planes:
    """Planes with runs, repeats and surprises."""
    planes = np.zeros(shape, np.uint32)
    for index in np.ndindex(shape):
        q, row, column = index
        kind = rng.integers(4)
        if kind == 0 and column:
            planes[index] = planes[q, row, column - 1]
        elif kind == 1 and row:
            planes[index] = planes[q, row - 1, column]
        elif kind == 2 and q:
            planes[index] = (planes[q - 1, row, column] * 7) % size
        else:
            planes[index] = min(int(rng.exponential(size / 4)), size - 1)
    return planes


SHAPES = [(1, 1, 1), (3, 7, 9), (2, 1, 40), (4, 40, 1), (1, 12, 2)]


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9, 300, 1024, 70_000, 1 << 20])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_adaptive_model_agrees_with_its_oracle(shape, size: int) -> None:
    planes = correlated(np.random.default_rng(size), shape, size)
    sizes = (size,) * shape[0]
    streams = entropy.adaptive_encode(planes, sizes)
    assert streams == [adaptive.encode(planes[: q + 1], size) for q in range(shape[0])]
    found, plain = np.zeros_like(planes), np.zeros_like(planes)
    for q, stream in enumerate(streams):
        entropy.adaptive_decode(found, q, size, stream)
        assert adaptive.decode(plain[: q + 1], size, stream)
    np.testing.assert_array_equal(found, planes)
    np.testing.assert_array_equal(plain, planes)


@needs_native
@given(st.binary(max_size=60), st.integers(1, 400), st.integers(1, 12), st.integers(1, 3))
@settings(deadline=None, max_examples=60)
def test_any_bytes_decode_to_codes_in_range(data: bytes, size: int, rows: int, q: int) -> None:
    planes = np.zeros((q, rows, 5), np.uint32)
    planes[:-1] = np.random.default_rng(size).integers(0, size, planes[:-1].shape)
    found, plain = planes.copy(), planes.copy()
    whole = adaptive.decode(plain, size, data)
    try:
        entropy.adaptive_decode(found, q - 1, size, data)
    except ValueError:
        assert not whole or data.endswith(b"\0")
    else:
        assert whole
    np.testing.assert_array_equal(found, plain)
    assert found.max() < size


@needs_native
def test_groups_that_no_longer_fit_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    # more than 2**18 groups of one model: as many contexts as codes
    codes = np.random.default_rng(0).integers(0, 1 << 20, (1, 1, 60_000)).astype(np.uint32)
    (stream,) = entropy.adaptive_encode(codes, (1 << 20,))
    found = np.zeros_like(codes)
    entropy.adaptive_decode(found, 0, 1 << 20, stream)
    np.testing.assert_array_equal(found, codes)


@needs_native
def test_nobody_can_choose_codes_that_take_long() -> None:
    """Codes whose groups would all lie side by side if keys were hashed as they once were."""
    rng, count = np.random.default_rng(0), 1 << 16
    some = np.unique(rng.integers(0, 1 << 18, 2048, np.uint64))  # of level 18, with model 2
    keys = ((some * 4 + 1) << 24)[:, None] | some | 1 << 18
    near = keys * np.uint64(0x9E3779B97F4A7C15) >> 32 & np.uint64((1 << 19) - 1) < 1 << 14
    followers = [rng.permutation(np.flatnonzero(row)) for row in near]
    walk, used = np.zeros(count, int), np.zeros(len(some), int)
    for i in range(1, count):
        last = walk[i - 1]
        walk[i] = followers[last][used[last] % len(followers[last])]
        used[last] += 1

    def seconds(codes) -> float:
        planes = np.ascontiguousarray(some[codes].reshape(1, -1, 1) * 4, np.uint32)
        begin = time.process_time()
        entropy.adaptive_encode(planes, (1 << 20,))
        return time.process_time() - begin

    assert seconds(walk) < 6 * seconds(rng.permutation(walk))  # it was 35 times as long


@needs_native
@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    planes = correlated(np.random.default_rng(1), (4, 9, 11), 50)
    wanted = [adaptive.encode(planes[: q + 1], 50) for q in range(4)]
    monkeypatch.setattr(native, "num_threads", lambda: threads)
    assert entropy.adaptive_encode(planes, (50,) * 4) == wanted


def test_a_constant_plane_costs_next_to_nothing() -> None:
    planes = np.full((1, 64, 64), 777, np.uint32)
    (stream,) = entropy.adaptive_encode(planes, (1024,))
    assert len(stream) < 64 * 64 / 256 * 1.5


def test_wrong_arguments_are_refused() -> None:
    planes = np.zeros((2, 3, 4), np.uint32)
    with pytest.raises(ValueError, match=r"uint32 \[2, rows, columns\], got int64"):
        entropy.adaptive_encode(planes.astype(np.int64), (5, 5))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="code 5 in plane 1, its codebook has size 5"):
        entropy.adaptive_encode(np.full_like(planes, 5), (6, 5))
    with pytest.raises(ValueError, match="must be in"):
        entropy.adaptive_encode(planes, (5, (1 << 20) + 1))
    (stream, _) = entropy.adaptive_encode(planes, (5, 5))
    with pytest.raises(ValueError, match="codebook 0 has bytes left over"):
        entropy.adaptive_decode(planes, 0, 5, stream + b"\0")
    with pytest.raises(ValueError, match="codebook 0 has bytes left over"):
        entropy.adaptive_decode(planes, 0, 5, stream + bytes(range(1, 20)))
    with pytest.raises(ValueError, match="contiguous"):
        entropy.adaptive_decode(planes[:, :, ::2], 0, 5, stream)
    for q in (-1, 2, 1000):
        with pytest.raises(ValueError, match=f"there is no plane {q} of 2"):
            entropy.adaptive_decode(planes, q, 5, stream)
    planes.setflags(write=False)
    with pytest.raises(ValueError, match="writeable"):
        entropy.adaptive_decode(planes, 0, 5, stream)
