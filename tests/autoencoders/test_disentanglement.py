"""Scores on codes whose answer is known."""

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from vqtok.autoencoders.disentanglement import (
    _mutual_information,
    dci,
    mutual_information_gap,
)


@pytest.fixture
def factors():
    return np.random.default_rng(0).integers(0, 6, (2000, 3))


def test_mutual_information_is_that_of_sklearn(factors):
    mixed = factors[:, 0] + factors[:, 1] // 3
    expected = mutual_info_score(mixed, factors[:, 0])
    assert _mutual_information(mixed, factors[:, 0]) == pytest.approx(expected)


def test_one_latent_per_factor_is_perfect(factors):
    noise = np.random.default_rng(1).normal(size=(2000, 2))
    latents = np.concatenate([factors[:, ::-1] * 2.0 - 3, noise], 1)
    assert mutual_information_gap(latents, factors) > 0.95
    found = dci(latents, factors)
    assert found.disentanglement > 0.95
    assert found.completeness > 0.95
    assert found.informativeness > 0.99


@pytest.mark.parametrize(("turned", "expected"), [(False, 1.0), (True, 0.75)])
def test_noise_beside_a_code_is_not_about_anything(turned, expected):
    # Four latents that know a factor each, or two of them both halves of a sum: two latents of 1,
    # two of 1 - log 2 / log 4. Neither the noise in them nor that of six others changes it.
    generator = np.random.default_rng(3)
    factors = np.stack([generator.integers(0, size, 6000) for size in (3, 6, 16, 16)], 1)
    latents = (factors - factors.mean(0)) / factors.std(0)
    if turned:
        first, second = latents[:, 2].copy(), latents[:, 3].copy()
        latents[:, 2], latents[:, 3] = (first + second) / 2**0.5, (first - second) / 2**0.5
    latents = latents + 0.4 * generator.normal(size=latents.shape)
    latents = np.concatenate([latents, generator.normal(size=(6000, 6))], 1)
    assert dci(latents, factors).disentanglement == pytest.approx(expected, abs=0.06)


def test_mixtures_and_copies_are_not(factors):
    copies = np.concatenate([factors, factors], 1).astype(float)
    assert mutual_information_gap(copies, factors) == pytest.approx(0, abs=1e-9)
    assert dci(copies, factors).completeness < 0.75
    mixing = np.array([[1, 1, 1], [1, -1, 1], [1, 1, -1]]) + 0.1
    mixed = dci(factors @ mixing, factors)
    assert mixed.disentanglement < 0.4
    noise = np.random.default_rng(2).normal(size=(2000, 4))
    assert mutual_information_gap(noise, factors) < 0.05
    assert dci(noise, factors).informativeness < 0.3
