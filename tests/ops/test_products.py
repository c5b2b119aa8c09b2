"""The code with the largest dot product, against float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vqtok import ops


def exact(x, codebook, bias=None):
    products = x.double() @ codebook.double().T
    return (products if bias is None else products + bias.double()).argmax(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_it_is_the_argmax(dtype):
    torch.manual_seed(0)
    x, codebook, bias = torch.randn(2000, 5), torch.randn(300, 5), torch.randn(300)
    x, codebook = x.to(dtype), codebook.to(dtype)
    assert torch.equal(ops.largest_product(x, codebook), exact(x, codebook))
    assert torch.equal(ops.largest_product(x, codebook, bias), exact(x, codebook, bias))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(0, 40),
    size=st.integers(1, 50),
    dim=st.integers(1, 9),
    steps=st.integers(1, 3),
)
def test_the_lowest_of_equal_products_is_chosen(seed, rows, size, dim, steps):
    """Small whole numbers: float64 is exact and ties abound."""
    generator = torch.Generator().manual_seed(seed)
    x, codebook = (
        torch.randint(-steps, steps + 1, (n, dim), generator=generator).float()
        for n in (rows, size)
    )
    products = x.long() @ codebook.long().T
    expected = [row.tolist().index(row.max()) for row in products]
    assert ops.largest_product(x, codebook).tolist() == expected


def test_near_ties_are_settled_in_float64(monkeypatch):
    torch.manual_seed(0)
    base = torch.nn.functional.normalize(torch.randn(64), dim=0)
    codebook = (base + 1e-8 * torch.randn(500, 64).double()).double()  # float32 sees them all equal
    x = torch.randn(300, 64)
    found = ops.largest_product(x, codebook)
    assert torch.equal(found, exact(x, codebook))
    from vqtok.ops import products

    monkeypatch.setattr(products, "_BLOCK", 700)  # one row at a time, few pairs at a time
    assert torch.equal(ops.largest_product(x, codebook), found)


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e-12, 1e12, 1e25, 1e37])
def test_values_of_any_size(scale):
    torch.manual_seed(0)
    x, codebook = torch.randn(200, 6), torch.randn(40, 6)
    for a, b in ((scale, 1.0), (1.0, scale), (scale, scale)):
        assert torch.equal(ops.largest_product(x * a, codebook * b), exact(x * a, codebook * b))


def test_equal_codes_of_any_number():
    x, codebook = torch.randn(20, 4), torch.ones(5000, 4)
    assert not ops.largest_product(x, codebook).any()


def test_what_is_not_finite():
    x, codebook = torch.randn(6, 3), torch.randn(8, 3)
    expected = exact(x, codebook)
    codebook[3], codebook[5, 1] = torch.nan, torch.inf
    x[2, 0], x[4, 2] = torch.inf, torch.nan
    with pytest.raises(ValueError, match="NaN or Inf"):
        ops.largest_product(x, codebook)
    codebook[3] = codebook[5] = 0
    expected = exact(x.nan_to_num(0, 0), codebook)
    codebook[3], codebook[5] = torch.nan, torch.inf
    found = ops.largest_product(x, codebook, check=False)
    assert found[2] == found[4] == 0
    kept = [0, 1, 3, 5]
    sure = [row for row in kept if expected[row] not in (3, 5)]
    assert torch.equal(found[sure], expected[sure])
    assert not set(found.tolist()) & {3, 5}


def test_shapes_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="dim 3, codebook has dim 4"):
        ops.largest_product(torch.randn(2, 3), torch.randn(5, 4))


def test_it_compiles_whole():
    x, codebook = torch.randn(30, 6), torch.randn(20, 6)
    whole = torch.compile(ops.largest_product, fullgraph=True, backend="eager")
    assert torch.equal(whole(x, codebook), exact(x, codebook))
