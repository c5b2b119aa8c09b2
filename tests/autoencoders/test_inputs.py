"""What the verbs refuse, before any work."""

import numpy as np
import pytest
import torch

from vqtok.autoencoders import build_autoencoder, variant
from vqtok.errors import UsageError


@pytest.fixture(scope="module")
def data():
    return torch.randn(12, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=["vanilla", "vqvae", "vae", "seq2seq-rnn"])
def model_and_data(request, data):
    sequences = request.param.startswith("seq2seq")
    samples = data.reshape(12, 4, 2) if sequences else data
    model = variant(request.param, samples.shape[1:])
    model.fit_density(samples)
    return model, samples


@pytest.mark.parametrize("verb", ["transform", "reconstruct", "score_samples", "fit_density"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite(model_and_data, verb, bad):
    model, samples = model_and_data
    spoilt = samples.clone()
    spoilt[5].view(-1)[3] = bad
    with pytest.raises(UsageError, match=rf"data \[5, .*\] is {bad}"):
        getattr(model, verb)(spoilt)
    with pytest.raises(UsageError, match=rf"data \[5, .*\] is {bad}"):
        getattr(model, verb)(spoilt.numpy())
    with pytest.raises(UsageError, match=rf"data \[5, .*\] is {bad}"):
        model.interpolate(spoilt, samples)


def test_what_a_mask_hides_may_be_anything():
    model = variant("seq2seq-rnn", (4, 2))
    samples = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True] * 4, [True] * 2 + [False] * 2, [True] * 4])
    hidden = samples.clone()
    hidden[1, 2:] = torch.nan
    assert torch.equal(model.score_samples(hidden, mask), model.score_samples(samples, mask))
    hidden[1, 1, 1] = torch.nan
    with pytest.raises(UsageError, match=r"data \[1, 1, 1\] is nan"):
        model.score_samples(hidden, mask)


@pytest.mark.parametrize("verb", ["transform", "reconstruct", "score_samples"])
@pytest.mark.parametrize("name", ["vanilla", "vqvae"])
def test_shapes(data, name, verb):
    call = getattr(variant(name, (8,)), verb)
    with pytest.raises(UsageError, match=r"\[N, 8\], not \[12, 3\]$"):
        call(data[:, :3])
    with pytest.raises(UsageError, match=r"\[N, 8\], not \[8\]: add a batch axis"):
        call(data[0])
    with pytest.raises(UsageError, match="must be a tensor or a numpy array, not list"):
        call(data.tolist())
    with pytest.raises(UsageError, match="must be numbers, not"):
        call(np.full((2, 8), "a"))


def test_shapes_of_sequences(data):
    with pytest.raises(UsageError, match=r"\[N, T, 2\], not \[12, 8\]: add a batch axis"):
        variant("seq2seq-rnn", (4, 2)).transform(data)


def test_what_is_decoded(data):
    model = variant("vanilla", (8,), code_size=3)
    with pytest.raises(UsageError, match=r"values must be \[N, ..., 3\], not \[2, 99\]"):
        model.inverse_transform(torch.zeros(2, 99))
    model.fit_density(data)
    with pytest.raises(UsageError, match=r"values must be \[N, 3\], not \[3\]: add"):
        model.inverse_transform(torch.zeros(3))
    with pytest.raises(UsageError, match=r"values \[1, 2\] is nan"):
        model.inverse_transform(torch.tensor([[0.0] * 3, [0, 0, torch.nan]]))
    with pytest.raises(UsageError, match=r"latents must be \[N, 3\], not \[2, 4\]"):
        model.decode_latents(torch.zeros(2, 4))
    with pytest.raises(UsageError, match=r"codes must be integers, not torch\.float32"):
        variant("vqvae", (8,)).inverse_transform(torch.zeros(2, 8, 1))
    with pytest.raises(UsageError, match="count must be at least 0, not -1"):
        model.sample(-1)


@pytest.mark.parametrize(
    ("missing", "said"),
    [("encoder", "'encoder'"), ("loss_weights", "'loss_weights'"), ("bottleneck", "'bottleneck'")],
)
def test_a_config_that_lacks_a_part(missing, said):
    config = dict(variant("vanilla", (8,)).config)
    del config[missing]
    with pytest.raises(ValueError, match=f"lacks .*{said}"):
        build_autoencoder(config)
