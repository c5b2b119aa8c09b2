"""FSQ and its kin against the published formulas, written out in float64."""

import math

import numpy as np
import pytest
import torch

from vqtok.quantizers import FSQ, IFSQ, ClampedFSQ, ResidualQuantizer, residual_fsq

LEVELS = [8, 5, 2, 3, 4, 7, 1000, 6]


def published(x, levels):
    """The listing of the paper's appendix A.1."""
    half = (levels - 1) * (1 - 1e-3) / 2
    offset = np.where(levels % 2 == 1, 0.0, 0.5)
    shift = np.tan(offset / half)
    rounded = np.round(np.tanh(x + shift) * half - offset)
    digits = (rounded + levels // 2).astype(object)
    basis = [math.prod(int(count) for count in levels[:d]) for d in range(len(levels))]
    return rounded / (levels // 2), (digits * basis).sum(-1).astype(np.int64)


def inputs(dim):
    x = 2 * torch.randn(4000, dim, generator=torch.Generator().manual_seed(0))
    x[:100] *= 1e4
    return x


def test_fsq_is_the_published_listing():
    quantizer = FSQ(LEVELS).eval()
    x = inputs(len(LEVELS))
    values, codes = published(x.double().numpy(), np.array(LEVELS))
    result = quantizer(x)
    # float32 may round a position within 1e-4 of a boundary the other way: a level of 1000.
    same = result.codes[:, 0].numpy() == codes
    assert same.mean() > 0.999
    torch.testing.assert_close(result.quantized[same].double(), torch.from_numpy(values)[same])


def test_ifsq_is_the_published_formula_for_odd_levels():
    levels = np.array([3, 5, 7, 17])
    x = inputs(4).clamp(-100, 100)
    half = (levels - 1) / 2
    position = (2 / (1 + np.exp(-1.6 * x.double().numpy())) - 1) * half
    result = IFSQ(levels.tolist()).eval()(x)
    same = np.abs(np.round(position) - position) < 0.499
    assert same.mean() > 0.99
    expected = torch.from_numpy(np.round(position) / (levels // 2))
    torch.testing.assert_close(result.quantized.double()[same], expected[same])


def test_ifsq_spreads_normal_latents_evenly():
    """Inner levels are used alike, the two outermost, whose cells are halves, half as much."""
    x = torch.randn(100_000, 1, generator=torch.Generator().manual_seed(0))
    spread = []
    for kind in (IFSQ, FSQ):
        share = torch.bincount(kind([9]).eval()(x).codes[:, 0], minlength=9) / 100_000
        spread.append(float(share[1:-1].max() / share[1:-1].min()))
        if kind is IFSQ:
            torch.testing.assert_close(share[[0, -1]], torch.full((2,), 1 / 16), atol=0.025, rtol=0)
    assert spread[0] < 1.2 < spread[1]


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8])
def test_even_and_odd_levels_of_ifsq_cover_the_range(count):
    quantizer = IFSQ([count])
    values = quantizer.embed(torch.arange(count)[:, None])[:, 0]
    torch.testing.assert_close(values, torch.linspace(-1, 1, count))
    far = quantizer.eval()(torch.tensor([[-1e9], [1e9]]))
    assert far.codes[:, 0].tolist() == [0, count - 1]


def test_exact_halves_go_to_the_even_level():
    quantizer = ClampedFSQ([5], scale=[2.0]).eval()
    x = torch.tensor([[-1.5], [-0.5], [0.5], [1.5]])
    assert quantizer(x).quantized[:, 0].tolist() == [-2.0, 0.0, 0.0, 2.0]


def test_clamped_is_the_nearest_point_of_the_grid():
    quantizer = ClampedFSQ([8, 3], scale=[1.5, 0.5]).eval()
    table = quantizer.embed(torch.arange(24)[:, None]).double()
    x = inputs(2)
    nearest = torch.cdist(x.double(), table).argmin(1)
    assert (quantizer(x).codes[:, 0] == nearest).float().mean() > 0.999


@pytest.mark.parametrize("kind", [FSQ, IFSQ])
def test_gradient_is_that_of_the_bound(kind):
    quantizer = kind([5, 8]).train()
    x = torch.randn(50, 2, requires_grad=True)
    weights = torch.randn(50, 2)
    (quantizer(x).quantized * weights).sum().backward()
    step = 1e-3
    wide = x.detach().double()
    up, down = (quantizer._place(quantizer._bound(wide + sign * step)) for sign in (1, -1))
    slope = (up - down) / (2 * step)
    torch.testing.assert_close(x.grad.double(), slope * weights, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("levels", [[8] * 21, [2] * 63, [7] * 22, [1000] * 6, [3, 2**4] * 10])
def test_codes_are_exact_to_2_63(levels):
    quantizer = FSQ(levels)
    size = math.prod(levels)
    assert quantizer.codebook_sizes == (size,)
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, min(size, 2**63 - 1), (2000, 1), generator=generator)
    codes[:3, 0] = torch.tensor([0, size - 1, size // 2])
    embedded = quantizer.embed(codes)
    assert torch.equal(quantizer.codes_of(embedded), codes)
    digits = [int(code) // math.prod(levels[:5]) % levels[5] for code in codes[:, 0]]
    torch.testing.assert_close(
        embedded[:, 5], torch.tensor([(d - levels[5] // 2) / (levels[5] // 2) for d in digits])
    )
    x = 10 * torch.randn(500, len(levels))
    result = quantizer.eval()(x)
    assert result.codes.min() >= 0
    assert int(result.codes.max()) < size
    assert torch.equal(quantizer.embed(result.codes), result.quantized)


def test_more_than_2_63_codes_are_refused():
    with pytest.raises(ValueError, match=r"more than 2\^63 codes"):
        FSQ([8] * 21 + [2])
    for levels in ([], [1], [1001]):
        with pytest.raises(ValueError, match="levels must be"):
            FSQ(levels)
    with pytest.raises(ValueError, match="scale must be"):
        ClampedFSQ([3, 3], scale=[1.0])


def test_residual_fsq_is_one_fine_grid():
    """Every codebook narrows the error down to a cell of the one before."""
    levels = [5, 4, 3]
    quantizer = residual_fsq(levels, 4).eval()
    assert isinstance(quantizer, ResidualQuantizer)
    x = 2 * torch.rand(3000, 3) - 1
    for used in range(1, 5):
        error = (quantizer(x, num_codebooks=used).quantized - x).abs().max(0).values
        bound = torch.tensor([(count - 1.0) ** -used for count in levels])
        assert (error <= bound * 1.001 + 1e-6).all()
        assert (error >= bound * 0.8).all()
