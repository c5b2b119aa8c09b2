"""Codes chosen by distance and bits: against their definition, on every instruction set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.tokens.test_prior import CASES, in_numpy, toy_prior
from vqtok.ops import native
from vqtok.ops.prior import MAX_WEIGHT, Wanted, value_bits
from vqtok.ops.prior_numpy import log2_steps
from vqtok.tokens import Prior


def some_wanted(rows: int, columns: int, size: int, dim: int, **options: int) -> Wanted:
    rng = np.random.default_rng(size)
    limit = (1 << value_bits(dim)) - 1
    targets = rng.integers(-limit, limit + 1, (rows, columns, dim)).astype(np.int16)
    embeddings = rng.integers(-limit, limit + 1, (size, dim)).astype(np.int16)
    return Wanted(targets, embeddings, **{"weight": 40_000, "weight_shift": 2, **options})


def chosen(prior: Prior, planes: np.ndarray, wanted: list[Wanted]) -> np.ndarray:
    found = planes.copy()
    for q, each in enumerate(wanted):
        prior.choose_plane(found, q, each)
    return found


@pytest.mark.parametrize(("sizes", "groups", "dims"), CASES)
@pytest.mark.parametrize("weight", [0, 40_000, MAX_WEIGHT])
@pytest.mark.parametrize("ahead", [False, True])
def test_every_instruction_set_chooses_what_numpy_chooses(
    sizes, groups, dims, weight: int, ahead: bool, monkeypatch
) -> None:
    prior = toy_prior(sizes, groups)
    first_row = dims[0] // 3
    shift = 0 if weight == MAX_WEIGHT else 2
    wanted = [
        some_wanted(*dims, size, 5 + 27 * q, weight=weight, weight_shift=shift, first_row=first_row)
        for q, size in enumerate(sizes)
    ]
    if ahead:
        rng = np.random.default_rng(1)
        for q, each in enumerate(wanted):
            following = rng.permutation(each.embeddings)[: q * 20 + 1] // 2
            wanted[q] = replace(each, next_embeddings=np.ascontiguousarray(following))
    rng = np.random.default_rng(0)
    planes = np.stack([rng.integers(0, size, dims) for size in sizes]).astype(np.uint32)
    with monkeypatch.context() as patch:
        in_numpy(patch)
        expected = chosen(prior, planes, wanted)
    assert np.array_equal(expected[:, :first_row], planes[:, :first_row])
    assert all(plane.max() < size for plane, size in zip(expected, sizes, strict=True))
    for isa in native.supported_isas():
        with native.force_isa(isa):
            np.testing.assert_array_equal(chosen(prior, planes, wanted), expected, isa)


@pytest.mark.parametrize("groups", [1, 5])
@pytest.mark.parametrize("weight", [0, 30, 3000])
def test_no_code_is_worth_more_than_the_chosen_one(groups: int, weight: int) -> None:
    """The oracle: for each position all codes are tried, with the bits that coding them takes."""
    sizes, dims = (9, 23), (4, 5)
    prior = toy_prior(sizes, groups)
    wanted = [some_wanted(*dims, size, 3, weight=weight * 2**8, weight_shift=4) for size in sizes]
    planes = chosen(prior, np.zeros((2, *dims), np.uint32), wanted)
    bit = 32 * weight * 2**4
    for q, each in enumerate(wanted):
        distances = ((each.targets[..., None, :] - each.embeddings.astype(np.int64)) ** 2).sum(-1)
        for place in np.ndindex(dims):
            tried = planes[: q + 1].copy()
            worth = []
            for code in range(sizes[q]):
                tried[q][place] = code
                bits = prior.costs(np.moveaxis(tried, 0, -1))[place][q]
                worth.append(distances[place][code] + bit * min(bits, 18.9))
            assert worth[planes[q][place]] <= min(worth) + 0.3 * bit


def test_a_heavier_weight_takes_fewer_bits_and_lies_further_off() -> None:
    prior, dims = toy_prior((64, 64), 1), (30, 20)
    bits, errors = [], []
    for weight in (0, 1_000, 10_000, 100_000, 1_000_000):
        wanted = [some_wanted(*dims, 64, 4, weight=weight, weight_shift=0) for _ in range(2)]
        planes = chosen(prior, np.zeros((2, *dims), np.uint32), wanted)
        bits.append(prior.costs(np.moveaxis(planes, 0, -1)).sum())
        error = wanted[0].targets - wanted[0].embeddings[planes[0]].astype(np.int64)
        errors.append((error**2).mean())
    assert bits == sorted(bits, reverse=True)
    assert errors == sorted(errors)
    assert bits[-1] < bits[0] / 2


def test_logarithms_in_steps() -> None:
    numbers = np.concatenate([np.arange(1, 3000), 2 ** np.arange(32), 2 ** np.arange(1, 33) - 1])
    exact = 32 * np.log2(numbers)
    found = log2_steps(numbers)
    assert (found <= exact + 1e-9).all()
    assert (found > exact - 1.001).all()
