"""The lookup against its definition, on everything that could make it differ."""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vqtok import ops
from vqtok.ops import native, reference

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SHAPES = [  # N, D, K
    (0, 4, 8),
    (1, 1, 1),
    (33, 4, 1),
    (77, 3, 17),
    (65, 33, 333),
    (200, 4, 1000),
    (96, 8, 1025),
    (130, 64, 640),
    (5, 4096, 12),
    (40, 257, 2000),
]


@pytest.fixture(params=native.supported_isas() or ["reference"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    with native.force_isa(request.param):
        yield request.param


@pytest.fixture(params=native.METHODS)
def method(request: pytest.FixtureRequest) -> Iterator[str]:
    with native.force_method(request.param):
        yield request.param


@functools.cache
def near_ties(n: int, d: int, k: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and codes with exact duplicates, 1e-7 perturbations and midpoints; and the codes."""
    generator = torch.Generator().manual_seed(n + 7 * d + 31 * k)
    codebook = torch.randn(k, d, generator=generator, dtype=torch.float64)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    if k >= 9:
        codebook[k // 2 :: 5] = codebook[1]
        codebook[k // 3 :: 7] = codebook[2] * (1 + 1e-7)
        codebook[k // 4 :: 9] = codebook[0] + 1e-7
    picks = torch.randint(k, (2, n), generator=generator)
    x[::3] = codebook[picks[0]][::3]
    x[1::3] = 0.5 * (codebook[picks[0]] + codebook[picks[1]])[1::3]
    x, codebook = x.to(dtype), codebook.to(dtype)
    return x, codebook, reference.nearest_by_definition(x, codebook)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_definition(
    shape: tuple[int, int, int], dtype: torch.dtype, isa: str, method: str
) -> None:
    x, codebook, want = near_ties(*shape, dtype)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            codes = ops.nearest(x, codebook)
            assert codes.dtype == torch.int64
            assert torch.equal(codes, want), f"{threads} threads"
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("scale", [1.0, 1e30])
def test_threads_share_the_codes_of_few_rows(scale: float, isa: str, method: str) -> None:
    """A block of rows against 45,000 codes, with ties among the shares."""
    generator = torch.Generator().manual_seed(3)
    codebook = torch.randn(45_000, 64, generator=generator)
    codebook[30_000:30_004] = codebook[:4]
    codebook[1:3] *= 1 + 1e-7
    x = codebook[[2, 0, 1, 44_999, 3, 20_000, 30_002]] * 1.0
    x[4] = 0.5 * (codebook[5] + codebook[40_000])
    x[6, 0] *= scale
    want = reference.nearest(x, codebook)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            assert torch.equal(ops.nearest(x, codebook), want), f"{threads} threads"
    finally:
        torch.set_num_threads(before)


def test_codebooks_larger_than_a_cache(isa: str, method: str) -> None:
    x, codebook, want = near_ties(600, 40, 9000, torch.float32)
    assert torch.equal(ops.nearest(x, codebook), want)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_reference_equals_definition(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    x, codebook, want = near_ties(*shape, dtype)
    assert torch.equal(reference.nearest(x, codebook), want)


@pytest.mark.parametrize("x_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("codebook_dtype", DTYPES, ids=str)
def test_dtypes_mix(x_dtype: torch.dtype, codebook_dtype: torch.dtype) -> None:
    x, codebook, _ = near_ties(96, 8, 1025, torch.float64)
    x, codebook = x.to(x_dtype), codebook.to(codebook_dtype)
    assert torch.equal(ops.nearest(x, codebook), reference.nearest_by_definition(x, codebook))


@pytest.mark.parametrize("row_scale", [1e-44, 1e-38, 1e-23, 1e-10, 1e8, 1e18, 1e20, 1e38])
@pytest.mark.parametrize("code_scale", [1e-42, 1e-23, 1.0, 1e15, 1e19, 1e37])
def test_any_scale(row_scale: float, code_scale: float, isa: str, method: str) -> None:
    generator = torch.Generator().manual_seed(1)
    x = (torch.randn(60, 9, generator=generator).clamp(-3, 3).double() * row_scale).float()
    codebook = (torch.randn(70, 9, generator=generator).clamp(-3, 3).double() * code_scale).float()
    assert torch.equal(ops.nearest(x, codebook), reference.nearest_by_definition(x, codebook))


@pytest.mark.parametrize("scale", [1e-310, 1e-160, 1e-45, 1e60, 1e160, 1e307])
def test_any_double_scale(scale: float, isa: str, method: str) -> None:
    x, codebook, _ = near_ties(77, 3, 17, torch.float64)
    x, codebook = x * scale, codebook * scale
    assert torch.equal(ops.nearest(x, codebook), reference.nearest_by_definition(x, codebook))


def test_float64_offset_hides_everything_from_float32(isa: str, method: str) -> None:
    x, codebook, _ = near_ties(77, 3, 17, torch.float64)
    x, codebook = x * 1e-9 + 1, codebook * 1e-9 + 1
    want = reference.nearest_by_definition(x, codebook)
    assert want.unique().numel() > 3
    assert torch.equal(ops.nearest(x, codebook), want)


def test_subnormals_count_where_they_are_flushed(isa: str, method: str) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(200, 4, generator=generator) * 1e-39
    codebook = torch.randn(50, 4, generator=generator) * 1e-39
    want = reference.nearest_by_definition(x, codebook)
    torch.set_flush_denormal(True)
    try:
        codes = ops.nearest(x, codebook)
        assert (torch.tensor(1e-39) * 0.5).item() == 0, "the caller's setting must survive"
    finally:
        torch.set_flush_denormal(False)
    assert torch.equal(codes, want)


def test_a_row_has_one_code_whatever_its_company(isa: str, method: str) -> None:
    x, codebook, want = near_ties(130, 64, 640, torch.float32)
    for start, stop in [(0, 1), (5, 7), (17, 64), (129, 130), (1, 130)]:
        assert torch.equal(ops.nearest(x[start:stop], codebook), want[start:stop])
    order = torch.randperm(130, generator=torch.Generator().manual_seed(3))
    assert torch.equal(ops.nearest(x[order], codebook), want[order])


def test_callers_may_be_threads() -> None:
    x, codebook, want = near_ties(40, 257, 2000, torch.float32)
    with ThreadPoolExecutor(4) as pool:
        for codes in pool.map(lambda _: ops.nearest(x, codebook), range(16)):
            assert torch.equal(codes, want)


def test_strided_rows_and_copies() -> None:
    x, codebook, want = near_ties(96, 8, 1025, torch.float32)
    wide = torch.full((96, 11), torch.nan)
    wide[:, 2:10] = x
    assert torch.equal(ops.nearest(wide[:, 2:10], codebook), want)
    assert torch.equal(ops.nearest(x.T.contiguous().T, codebook.T.contiguous().T), want)
    assert torch.equal(ops.nearest(x.flip(0).flip(0), codebook[None].expand(2, -1, -1)[1]), want)
    same = x[:1].expand(5, -1)
    assert torch.equal(ops.nearest(same, codebook), want[:1].expand(5))


def test_codebook_may_change_in_place() -> None:
    x, codebook, want = near_ties(96, 8, 1025, torch.float32)
    codebook = codebook.clone()
    assert torch.equal(ops.nearest(x, codebook), want)
    codebook.data.neg_()  # not visible in the version counter
    assert torch.equal(ops.nearest(-x, codebook), want)
    codebook.numpy()[1024] = x[5].numpy()  # nor this
    nearest = reference.nearest_by_definition(x, codebook)
    assert nearest[5] == 1024
    assert torch.equal(ops.nearest(x, codebook), nearest)


def test_codebook_written_during_a_lookup_is_not_remembered_wrong() -> None:
    generator = torch.Generator().manual_seed(11)
    codebook, new = torch.randn(2, 1 << 15, 32, generator=generator)
    x = torch.randn(4, 32, generator=generator)
    want = reference.nearest_by_definition(x, new)
    for trial in range(12):
        shared = codebook + trial
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(ops.nearest, x, shared)
            time.sleep(0.0005 * trial)
            shared.copy_(new)
            running.result()
        assert torch.equal(ops.nearest(x, shared), want)


def test_a_forked_child_looks_up_while_its_parent_does() -> None:
    script = """
import os, threading, torch
from vqtok import ops
torch.set_num_threads(1)
codebooks = [torch.randn(8, 2) for _ in range(64)]
x = torch.zeros(1, 2)
ops.nearest(x, codebooks[0])
stop = threading.Event()
def work():
    while not stop.is_set():
        for codebook in codebooks:
            ops.nearest(x, codebook)
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
for _ in range(40):
    child = os.fork()
    if child == 0:
        ops.nearest(x, codebooks[0])
        os._exit(0)
    os.waitpid(child, 0)
stop.set()
for thread in threads: thread.join()
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script]
    subprocess.run(command, check=True, timeout=120)


def test_equal_codes_far_apart_and_rows_out_of_range(isa: str, method: str) -> None:
    generator = torch.Generator().manual_seed(7)
    codebook = torch.randn(3000, 24, generator=generator)
    codebook[1500:] = codebook[:1500]  # in another part of the codebook
    codebook[7] *= 1e4  # coarsens what 8 bits can tell
    x = torch.randn(200, 24, generator=generator)
    x[::5] *= torch.logspace(-8, 12, 40)[:, None]
    want = reference.nearest_by_definition(x, codebook)
    assert torch.equal(ops.nearest(x, codebook), want)


@functools.cache
def clustered() -> tuple[Tensor, Tensor, Tensor]:
    """Rows that visit few boxes, one in ten of them far away: where methods are changed midway."""
    generator = torch.Generator().manual_seed(8)
    centres = torch.randn(64, 8, generator=generator) * 5
    x = centres[torch.randint(64, (16000,), generator=generator)]
    x = x + 0.05 * torch.randn(16000, 8, generator=generator)
    x[::10] *= 1e3
    codebook = x[torch.randperm(16000, generator=generator)[:2048]].clone()
    return x, codebook, reference.nearest(x, codebook)


def test_clustered_rows(isa: str, method: str) -> None:
    x, codebook, want = clustered()
    assert torch.equal(ops.nearest(x, codebook), want)


def test_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown method 'magic': choose one of auto"):
        native.force_method("magic").__enter__()


@functools.cache
def every_code_twice() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(70, 4, generator=generator)
    codebook = torch.randn(1 << 15, 4, generator=generator).repeat(2, 1)
    return x, codebook, reference.nearest(x, codebook)


def test_large_codebook_of_duplicates(isa: str, method: str) -> None:
    x, codebook, want = every_code_twice()
    assert torch.equal(ops.nearest(x, codebook), want)
    assert not ops.nearest(x, codebook[7].expand(9000, -1)).any()


def test_more_ties_than_one_list_holds(isa: str, method: str) -> None:
    signs = torch.arange(9000)[:, None] >> torch.arange(16) & 1
    assert not ops.nearest(torch.zeros(70, 16), signs * 2.0 - 1).any()


def test_zeros_of_both_signs_are_equal(isa: str, method: str) -> None:
    codebook = torch.tensor([[9.0, 9.0], [0.0, 1.0], [-0.0, 1.0], [0.0, 1.0], [-0.0, 2.0]])
    assert ops.nearest(torch.tensor([[-0.0, 1.1], [0.0, 1.9]]), codebook).tolist() == [1, 4]


def test_bad_values_are_refused_or_defined(isa: str, method: str) -> None:
    x, codebook, want = near_ties(96, 8, 1025, torch.float32)
    bad = x.clone()
    bad[40, 3], bad[21, 7] = torch.inf, torch.nan
    with pytest.raises(ValueError, match=r"x\[21\] holds NaN or Inf"):
        ops.nearest(bad, codebook)
    codes = ops.nearest(bad, codebook, check=False)
    assert codes[21] == codes[40] == 0
    rest = [n for n in range(96) if n not in (21, 40)]
    assert torch.equal(codes[rest], want[rest])

    codebook = codebook.clone()
    codebook[5, 0], codebook[900, 1] = -torch.inf, torch.nan
    with pytest.raises(ValueError, match=r"codebook\[5\] holds NaN or Inf"):
        ops.nearest(x, codebook)
    codes = ops.nearest(bad, codebook, check=False)
    assert torch.equal(codes, reference.nearest_by_definition(bad, codebook))
    assert not ops.nearest(x, torch.full_like(codebook, torch.nan), check=False).any()


@pytest.mark.parametrize(
    ("x", "codebook", "message"),
    [
        (torch.zeros(3, 7), torch.zeros(4, 8), r"x has dim 7, codebook has dim 8: x \[3, 7\]"),
        (torch.zeros(3, 7), torch.zeros(0, 7), r"\[0, 7\]"),
        (torch.zeros(3, 0), torch.zeros(4, 0), r"dim of 1 to"),
        (torch.zeros(7), torch.zeros(4, 7), r"x \[N, D\]"),
        (torch.zeros(3, 7, dtype=torch.int64), torch.zeros(4, 7), r"x is torch.int64"),
        (torch.zeros(3, 7), torch.zeros(4, 7, dtype=torch.complex64), r"codebook is torch"),
        (torch.zeros(1, 65537), torch.zeros(1, 65537), r"dim of 1 to 65536"),
    ],
)
def test_wrong_arguments(x: Tensor, codebook: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ops.nearest(x, codebook)


FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 1.0000001, 2**-149, 1e-38, 3e38, -3e38, 1e19]),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_any_floats(data: st.DataObject) -> None:
    n, d, k = (data.draw(st.integers(1, top)) for top in (6, 5, 12))
    x = torch.tensor(data.draw(st.lists(FLOATS, min_size=n * d, max_size=n * d))).view(n, d)
    values = data.draw(st.lists(FLOATS, min_size=k * d, max_size=k * d))
    codebook = torch.tensor(values).view(k, d)
    want = reference.nearest_by_definition(x, codebook)
    for name, method in product(native.supported_isas(), native.METHODS):
        with native.force_isa(name), native.force_method(method):
            assert torch.equal(ops.nearest(x, codebook), want)
    assert torch.equal(reference.nearest(x, codebook), want)


def test_memory_stays_far_below_rows_times_codes() -> None:
    code = """
import resource, torch
from vqtok import ops
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
x, codebook = torch.randn(40000, 4), torch.randn(16384, 4)
ops.nearest(x[:64], codebook)
before = peak()
ops.nearest(x, codebook)
assert peak() - before < 16 << 20, f"{(peak() - before) >> 20} MiB; N x K floats are 2500 MiB"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
