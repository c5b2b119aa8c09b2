"""Fitting arrays: what comes out, beside PCA and the mean."""

import numpy as np
import pytest
import torch
from sklearn import decomposition
from sklearn.datasets import load_digits

from vqtok.autoencoders import VARIANTS, Autoencoder, variant
from vqtok.errors import UsageError
from vqtok.training import Arrays, MemorisingWarning, default_config, fit
from vqtok.training.baselines import PCA, code_size
from vqtok.training.fit import split


@pytest.fixture(scope="module")
def digits():
    return torch.from_numpy(load_digits().data).float() / 16


def blobs(count=200, seed=0):
    """A curved sheet in six dimensions, with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    u, v = torch.rand(2, count, generator=generator) * 4 - 2
    clean = torch.stack([u, v, u * v, u.sin(), v.cos(), u**2], 1)
    return clean + 0.05 * torch.randn(count, 6, generator=generator)


def test_batches_cover_each_epoch_once():
    data = Arrays(torch.arange(10.0)[:, None], batch_size=4, seed=3)
    seen = torch.cat(list(data.batches(0, 5))).flatten()
    assert sorted(seen[:10].tolist()) == list(range(10))
    assert sorted(seen[10:].tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()
    again = Arrays(torch.arange(10.0)[:, None], batch_size=4, seed=3)
    assert torch.equal(again.batch(3), data.batch(3))
    strided = torch.cat([*data.batches(0, 4, 2), *data.batches(1, 4, 2)])
    assert sorted(strided.flatten().tolist()) == sorted(seen[:16].tolist())
    assert data.digest != Arrays(torch.arange(10.0)[:, None], batch_size=4, seed=4).digest


def test_pca_is_that_of_sklearn(digits):
    theirs = decomposition.PCA(5).fit(digits.double().numpy())
    expected = theirs.inverse_transform(theirs.transform(digits.double().numpy()))
    made = PCA.fit(digits, 5).reconstruct(digits)
    np.testing.assert_allclose(made.numpy(), expected, atol=1e-5)
    wide = digits[:20]
    theirs = decomposition.PCA(5).fit(wide.double().numpy())
    expected = theirs.inverse_transform(theirs.transform(wide.double().numpy()))
    np.testing.assert_allclose(PCA.fit(wide, 5).reconstruct(wide).numpy(), expected, atol=1e-5)


def test_a_linear_autoencoder_is_pca(digits):
    """Baldi & Hornik 1989: the same error, the same subspace."""
    torch.manual_seed(0)
    settings = {"hidden": (), "code_size": 8, "scaling": "none", "likelihood": "mse"}
    model = variant("undercomplete", (64,), **settings).double()
    samples = digits.double()
    optimizer = torch.optim.LBFGS(
        model.parameters(),
        max_iter=1000,
        history_size=30,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def loss():
        optimizer.zero_grad()
        total = 64 * model.total_loss(model(samples).losses)
        total.backward()
        return total

    optimizer.step(loss)
    pca = PCA.fit(digits, 8)
    ours = float((model(samples).output - samples).detach().square().mean())
    theirs = float((pca.reconstruct(digits) - samples).square().mean())
    assert 0 <= ours / theirs - 1 < 1e-4
    weight = model.decoder.layers[0].weight.detach().double()
    cosines = torch.linalg.svdvals(pca.axes @ torch.linalg.qr(weight).Q)
    assert float(cosines.min()) > 0.9999


def test_the_report_has_the_baselines_beside_it(digits):
    fitted = fit("vanilla", digits, default_config(steps=150), code_size=8, scaling="none")
    names = [score.name for score in fitted.scores]
    assert names == ["vanilla", "PCA, 8 components", "mean"]
    train, held_out = split(digits, 0.1, 0)
    assert len(held_out) == 180
    theirs = decomposition.PCA(8).fit(train.numpy())
    made = theirs.inverse_transform(theirs.transform(held_out.numpy()))
    variance = float((train - train.mean(0)).square().mean())
    expected = float(((made - held_out.numpy()) ** 2).mean()) / variance
    assert fitted.scores[1].held_out == pytest.approx(expected, rel=1e-3)
    error = fitted.model.reconstruct(held_out) - held_out
    assert fitted.scores[0].held_out == pytest.approx(float(error.square().mean()) / variance)
    assert fitted.scores[2].train == pytest.approx(1.0, rel=1e-4)
    assert "held out" in str(fitted)


def test_memorising_is_noticed():
    noise = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    config = default_config(steps=400, batch_size=40, learning_rate=5e-3)
    with pytest.warns(MemorisingWarning, match="memorises"):
        fitted = fit("vanilla", noise, config, hidden=(128,), code_size=8, held_out=0.25)
    assert fitted.memorises


def test_a_threshold_marks_the_share_asked_for():
    data = blobs(400)
    fitted = fit("vanilla", data, default_config(steps=50), contamination=0.1)
    rest = split(data, 0.1, 0)[1]
    below = fitted.model.score_samples(rest) < fitted.model.threshold
    assert float(below.float().mean()) == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_fits_and_has_all_verbs(name, tmp_path):
    series = ("seq2seq-rnn", "seq2seq-transformer", "seq2seq-conv")
    shapes = {"convolutional": (1, 9, 8), **dict.fromkeys(series, (6, 2))}
    shape = shapes.get(name, (6,))
    data = blobs(150)
    if name in shapes:
        data = torch.rand(150, *shape, generator=torch.Generator().manual_seed(0))
    settings = {"hidden": (8,)} if name in shapes else {}
    model = fit(name, data, default_config(steps=30), out=tmp_path, **settings).model
    assert model.reconstruct(data).shape == data.shape
    code = model.transform(data)
    torch.testing.assert_close(model.inverse_transform(code), model.reconstruct(data))
    scores = model.score_samples(data)
    assert scores.shape == (150,)
    assert torch.equal(scores, model.score_samples(data))
    assert model.score_samples(data, per_feature=True).shape == data.shape
    assert model.sample(7, seed=1).shape == (7, *shape)
    assert torch.equal(model.sample(7, seed=1), model.sample(7, seed=1))
    line = model.interpolate(data[:2], data[2:4], 5)
    assert line.shape == (2, 5, *shape)
    torch.testing.assert_close(line[:, 0], model.reconstruct(data[:2]))
    torch.testing.assert_close(line[:, -1], model.reconstruct(data[2:4]))
    numbers = model.score_samples(data.double().numpy())
    assert isinstance(numbers, np.ndarray)
    np.testing.assert_array_equal(numbers, scores.numpy())
    loaded = Autoencoder.from_pretrained(tmp_path)
    assert torch.equal(loaded.score_samples(data), scores)
    assert loaded.fingerprint == model.fingerprint
    assert loaded.provenance["train"]["steps"] == 30
    assert code_size(loaded, data) >= 1


def test_scores_do_not_depend_on_the_batch():
    data = blobs(3000)
    model = fit("vae", data, default_config(steps=20)).model
    torch.testing.assert_close(
        model.score_samples(data)[1500:1503], model.score_samples(data[1500:1503])
    )


def test_data_that_are_none():
    for wrong, message in [
        (np.array([["a", "b"]]), "must be numbers"),
        (np.ones(5), r"must be \[samples"),
        (np.array([[1.0, np.nan]]), "NaN"),
        (np.ones((0, 3)), r"must be \[samples"),
    ]:
        with pytest.raises(UsageError, match=message):
            fit("vanilla", wrong)
    with pytest.raises(UsageError, match=r"values in \[0, 1\]"):
        fit("vanilla", blobs(), likelihood="bernoulli", scaling="none")
    with pytest.raises(ValueError, match="has no setting 'depth'"):
        fit("vanilla", blobs(), depth=3)
    with pytest.raises(ValueError, match="unknown variant 'vea'"):
        variant("vea", (6,))


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_a_wrong_share_is_refused_before_training(share, tmp_path):
    with pytest.raises(UsageError, match=r"contamination must be in \(0, 1\)"):
        fit("vanilla", blobs(), contamination=share, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_sample_is_too_few():
    with pytest.raises(UsageError, match="1 sample: at least 2"):
        fit("vanilla", blobs(1))


def test_pca_is_named_after_the_components_it_has():
    fitted = fit("vanilla", blobs()[:, :2], default_config(steps=1), code_size=8)
    assert [score.name for score in fitted.scores] == ["vanilla", "PCA, 2 components", "mean"]
    assert [score.code_size for score in fitted.scores] == [8, 2, 0]
    fitted = fit("vanilla", blobs(), default_config(steps=1), code_size=1)
    assert fitted.scores[1].name == "PCA, 1 component"


@pytest.mark.parametrize(
    ("name", "setting", "value", "message"),
    [
        ("vae", "beta", -3, "a number of at least 0, not -3"),
        ("vae", "beta", float("nan"), "a number of at least 0, not nan"),
        ("vae", "warmup", -1, "a whole number of at least 0"),
        ("vqvae", "codebook_size", 1, "a whole number of at least 2, not 1"),
        ("vqvae", "codebook_size", 2.5, "a whole number of at least 2, not 2.5"),
        ("vanilla", "code_size", "abc", "a whole number of at least 1, not 'abc'"),
        ("vanilla", "code_size", True, "a whole number of at least 1, not True"),
        ("vanilla", "hidden", 0, "whole numbers of at least 1, such as"),
        ("vanilla", "hidden", [8, 0], "whole numbers of at least 1, such as"),
        ("vanilla", "hidden", "abc", "whole numbers of at least 1, such as"),
        ("vanilla", "stack", 3, "a name, not 3"),
        ("vanilla", "stack", None, "a name, not None"),
        ("denoising", "corruption", "zz", "a number of at least 0, not 'zz'"),
        ("seq2seq-rnn", "latents", "many", "a whole number of at least 1, not 'many'"),
    ],
)
def test_settings_of_a_wrong_type_or_out_of_range(name, setting, value, message):
    with pytest.raises(ValueError, match=f"{setting} must be {message}"):
        variant(name, (6, 2) if name.startswith("seq2seq") else (6,), **{setting: value})


def test_settings_at_their_least_are_taken():
    assert variant("vqvae", (6,), codebook_size=np.int64(2)).bottleneck.codebook_sizes == (2,)
    assert variant("vae", (6,), beta=0, warmup=0, hidden=()).loss_weights == {"kl": 0}


def test_options_mix():
    model = variant("vqvae", (1, 12, 12), stack="conv", noise=0.3, hidden=(4, 8), code_size=4)
    assert model.corruption.config == {"type": "gaussian", "scale": 0.3}
    assert model.encoder.config["type"] == "grid"
    # Commitment is a mean over 3 x 3 positions of 4 dimensions; its weight makes it a sum.
    assert model.loss_weights == {"commitment": 0.25 * 36}
    with pytest.raises(ValueError, match="not both"):
        variant("vae", (6,), noise=0.1, masked=0.2)
    with pytest.raises(ValueError, match=r"samples \(C, H, W\)"):
        variant("convolutional", (6,))
