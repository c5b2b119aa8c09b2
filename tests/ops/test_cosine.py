"""The lookup by angle against its definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vqtok import ops
from vqtok.ops import library, native, reference

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def unit(vector: list[float]) -> list[float]:
    """The definition, in Python's own float64, without the power of two (exact anyway)."""
    norm = sum(value * value for value in vector) ** 0.5
    return [value / norm for value in vector]


def by_definition(x: Tensor, codebook: Tensor) -> Tensor:
    return reference.nearest_by_definition(reference.unit_rows(x), reference.unit_rows(codebook))


def problem(n: int, d: int, k: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rows and codes of very different lengths, with parallel and nearly parallel codes."""
    generator = torch.Generator().manual_seed(n + d + k)
    x = torch.randn(n, d, generator=generator) * torch.logspace(-3, 3, n)[:, None]
    codebook = torch.randn(k, d, generator=generator) * torch.logspace(-2, 2, k)[:, None]
    if k > 9:
        codebook[k // 2] = 4 * codebook[1]
        codebook[k // 3] = 3 * codebook[2]
        codebook[k // 4] = codebook[0] * (1 + 1e-7)
        codebook[5] = 0
        x[::3] = codebook[: len(x[::3])]
    return x.to(dtype), codebook.to(dtype)


def test_unit_vectors_are_those_of_the_definition() -> None:
    x = torch.randn(50, 7, dtype=torch.float64)
    want = torch.tensor([unit(row) for row in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(reference.unit_rows(x), want, rtol=1e-15, atol=0)
    scaled = reference.unit_rows(x * 2.0**700)
    assert torch.equal(scaled, reference.unit_rows(x))
    assert torch.equal(reference.unit_rows(x * 2.0**-900), scaled)
    assert reference.unit_rows(torch.zeros(1, 3)).isnan().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(0, 4, 8), (1, 1, 1), (90, 3, 30), (77, 70, 333)], ids=str)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("isa", native.supported_isas())
def test_equals_definition(
    shape: tuple[int, int, int], dtype: torch.dtype, threads: int, isa: str
) -> None:
    x, codebook = problem(*shape, dtype)
    want = by_definition(x, codebook)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with native.force_isa(isa):
            assert torch.equal(ops.nearest_cosine(x, codebook), want)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(reference.nearest_cosine(x, codebook), want)


def test_is_the_largest_cosine_whatever_the_lengths() -> None:
    x, codebook = torch.randn(3000, 16), torch.randn(200, 16)
    cosine = (
        torch.nn.functional.normalize(x.double(), dim=1)
        @ torch.nn.functional.normalize(codebook.double(), dim=1).mT
    )
    codes = ops.nearest_cosine(x, codebook)
    assert torch.equal(codes, cosine.argmax(1))
    assert torch.equal(ops.nearest_cosine(x * 2.0**60, codebook * 2.0**-60), codes)
    assert torch.equal(ops.nearest_cosine(x.double() * 1e-300, codebook.double() * 1e300), codes)


def test_blocks_and_strides_change_nothing() -> None:
    """More rows than are normalised at a time."""
    x, codebook = torch.randn(9000, 70), torch.randn(12, 70)
    codes = ops.nearest_cosine(x, codebook)
    assert torch.equal(codes[7000:], ops.nearest_cosine(x[7000:], codebook))
    wide = torch.full((9000, 75), torch.nan)
    wide[:, 3:73] = x
    assert torch.equal(ops.nearest_cosine(wide[:, 3:73], codebook), codes)
    assert torch.equal(ops.nearest_cosine(x.T.contiguous().T, codebook), codes)


def test_what_has_no_direction() -> None:
    x, codebook = torch.randn(20, 4), torch.randn(9, 4)
    codebook[0] = 0
    codes = ops.nearest_cosine(-codebook, codebook)
    assert codes[0] == 0, "a row of zeros"
    assert (codes[1:] > 0).all(), "a code of zeros is not chosen"
    assert not ops.nearest_cosine(x, torch.zeros(3, 4)).any()
    x[7, 2], codebook[4, 1] = torch.inf, torch.nan
    with pytest.raises(ValueError, match=r"codebook\[4\] holds NaN or Inf"):
        ops.nearest_cosine(x, codebook)
    with pytest.raises(ValueError, match=r"x\[7\] holds NaN or Inf"):
        ops.nearest_cosine(x, codebook[:4])
    codes = ops.nearest_cosine(x, codebook, check=False)
    assert codes[7] == 0
    assert not (codes == 4).any()
    assert torch.equal(codes, by_definition(x, codebook))


def test_other_devices_get_the_same() -> None:
    x, codebook = problem(90, 3, 30, torch.float32)
    assert torch.equal(library._cosine_any(x, codebook), ops.nearest_cosine(x, codebook))
    x[3, 0] = torch.nan
    with pytest.raises(ValueError, match=r"x\[3\] holds NaN"):
        library._cosine_any(x, codebook)
    with pytest.raises(ValueError, match="x has dim 3, codebook has dim 4"):
        ops.nearest_cosine(x, torch.zeros(2, 4))
