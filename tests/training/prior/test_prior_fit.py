from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from vqtok.errors import UsageError
from vqtok.quantizers import ResidualQuantizer, VectorQuantizer
from vqtok.tokens.prior import Prior
from vqtok.training.prior import PriorConfig, train_prior
from vqtok.training.prior.fit import codebook_vectors, prior_bits

SIZES = (16, 16)


def tokenizer(sizes: tuple[int, ...] = SIZES, modality: str = "image") -> Any:
    torch.manual_seed(0)
    quantizer = ResidualQuantizer([VectorQuantizer(size, 4) for size in sizes]).eval()
    autoencoder = SimpleNamespace(quantizer=quantizer)
    return SimpleNamespace(
        autoencoder=autoencoder,
        codebook_sizes=sizes,
        modality=modality,
        fingerprint="0" * 64,
        device=torch.device("cpu"),
    )


def chains(number: int, shape: tuple[int, int], seed: int = 0) -> list[np.ndarray]:
    """The first code is the left one plus 0 or 1, the second that of the first plus 0 to 3.

    So beyond the border they take 1 and 2 bits, of 4.
    """
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(number):
        steps = rng.integers(0, 2, shape)
        first = (rng.integers(0, 16, (shape[0], 1)) + steps.cumsum(1)) % 16
        second = (first + rng.integers(0, 4, shape)) % 16
        samples.append(np.stack([first, second], axis=-1))
    return samples


@pytest.fixture(scope="module")
def trained() -> Any:
    config = PriorConfig(steps=500, batch_size=512, max_bytes=20_000, learning_rate=1e-2)
    return train_prior(tokenizer(), chains(20, (10, 40)), config)


def test_it_finds_the_entropy_that_is_there(trained: Any) -> None:
    bits = prior_bits(trained, chains(5, (10, 40), seed=1))
    border = 3 / 40  # of the first code of a row there is nothing to know: 4 bits, not 1
    assert bits[0] == pytest.approx(1 + border, rel=0.15)
    assert bits[1] == pytest.approx(2, rel=0.15)


def test_rounding_costs_at_most_one_percent(trained: Any) -> None:
    facts = trained.training["bits_per_code"]
    assert sum(facts["integer"]) <= 1.01 * sum(facts["float"])
    assert facts["fixed"] == [4, 4]
    assert facts["order0"] == pytest.approx([4, 4], abs=0.1)


def test_it_says_how_it_came_about(trained: Any) -> None:
    facts = trained.training
    assert (facts["samples"], facts["validation_samples"], facts["positions"]) == (19, 1, 7600)
    assert (facts["steps"], facts["seed"], facts["batch_size"]) == (500, 0, 512)
    assert {"vqtok", "torch", "python", "machine", "threads"} <= facts.keys()
    assert trained.tokenizer == "0" * 64
    assert len(trained.to_bytes()) < 20_000 + 4_000


def test_the_same_seed_gives_the_same_bytes() -> None:
    config = PriorConfig(steps=5, batch_size=64, max_bytes=20_000)
    samples = chains(3, (6, 7))
    first, again = (train_prior(tokenizer(), samples, config).to_bytes() for _ in range(2))
    other = train_prior(
        tokenizer(), samples, PriorConfig(steps=5, batch_size=64, max_bytes=20_000, seed=1)
    )
    assert first == again != other.to_bytes()


def test_large_codebooks_and_sound() -> None:
    rng = np.random.default_rng(0)
    samples = [rng.integers(0, [5000, 3], (9, channels, 2)) for channels in (1, 2)]
    config = PriorConfig(steps=4, batch_size=32)
    prior = train_prior(tokenizer((5000, 3), "audio"), samples, config)
    assert prior.costs(samples[1]).shape == (9, 2, 2)
    streams = prior.encode(samples[1])
    assert (prior.decode(streams, (9, 2)) == samples[1]).all()


def test_vectors_are_the_codebooks(trained: Any) -> None:
    made = tokenizer()
    vectors = codebook_vectors(made)
    layers = made.autoencoder.quantizer.layers
    assert torch.allclose(vectors[0], layers[0].embed(torch.arange(16)[:, None]))
    second = layers[1].embed(torch.arange(16)[:, None])
    assert torch.allclose(vectors[1] - vectors[1].mean(0), second - second.mean(0), atol=1e-6)


@pytest.mark.parametrize("settings", [{"steps": 0}, {"max_bytes": 0}, {"learning_rate": -1.0}])
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(settings))):
        PriorConfig(**settings)


def test_one_sample_is_too_few() -> None:
    with pytest.raises(UsageError, match="at least two samples"):
        train_prior(cast("Any", tokenizer()), chains(1, (4, 4)))


@pytest.mark.parametrize(("sizes", "modality"), [((16, 16), "image"), ((5000, 3), "audio")])
def test_a_prior_that_is_not_trained_on_comes_back(sizes, modality) -> None:
    rng = np.random.default_rng(0)
    samples = [rng.integers(0, sizes, (9, channels, 2)) for channels in (1, 2, 3)]
    made = tokenizer(sizes, modality)
    first = train_prior(made, samples, PriorConfig(steps=20, batch_size=64))
    unmoved = PriorConfig(steps=1, batch_size=1, learning_rate=1e-30)
    again = train_prior(made, samples, unmoved, start=first)
    assert again.training["start"] == first.digest
    for codes in samples:
        np.testing.assert_allclose(again.costs(codes), first.costs(codes), atol=0.05)


def test_training_goes_on_from_a_prior(trained: Any) -> None:
    """A few steps from it are better than as many from nothing, and hardly change it."""
    config = PriorConfig(steps=5, batch_size=512, learning_rate=1e-3)
    others = chains(5, (10, 40), seed=1)
    on = train_prior(tokenizer(), chains(20, (10, 40)), config, start=trained)
    assert {name: on.tensors[name].shape for name in on.tensors} == {
        name: trained.tensors[name].shape for name in trained.tensors
    }
    assert sum(prior_bits(on, others)) == pytest.approx(sum(prior_bits(trained, others)), rel=0.03)
    assert sum(prior_bits(train_prior(tokenizer(), others, config), others)) > 6


def test_a_prior_of_other_codebooks_is_no_start(trained: Any) -> None:
    with pytest.raises(UsageError, match="other codebooks"):
        train_prior(tokenizer((16, 8)), chains(3, (4, 4)), start=trained)


def test_a_prior_of_another_form_is_no_start(trained: Any) -> None:
    tensors = {**trained.tensors, "0.context": trained.tensors["0.context"] * [[1, 2, 2]]}
    tensors["0.context"] = tensors["0.context"].astype(np.int32)
    far = Prior(tensors, codebook_sizes=SIZES, modality="image", tokenizer="0" * 64)
    with pytest.raises(UsageError, match="more than 8 rows or 3 columns away"):
        train_prior(tokenizer(), chains(3, (4, 4)), start=far)
