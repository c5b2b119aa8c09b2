"""The scikit-learn adapter: its own checks, pipelines, and the same numbers as the model."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from vqtok.autoencoders import Autoencoder, variant
from vqtok.estimator import AutoencoderEstimator


@parametrize_with_checks([AutoencoderEstimator(steps=5)])
def test_sklearn_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


def test_in_a_pipeline(digits):
    X, y = digits
    settings = {"code_size": 16}
    pipeline = make_pipeline(
        AutoencoderEstimator("undercomplete", settings=settings, steps=150),
        LogisticRegression(max_iter=300),
    )
    copy = clone(pipeline).fit(X[:800], y[:800])
    assert copy.score(X[800:], y[800:]) > 0.6
    assert copy[0].get_feature_names_out().shape == (16,)
    search = GridSearchCV(
        AutoencoderEstimator(steps=10), {"settings": [{"code_size": 2}, {"code_size": 8}]}, cv=2
    )
    assert set(search.fit(X[:100]).best_params_) == {"settings"}


def test_it_says_what_the_model_says(digits, tmp_path):
    X, _ = digits
    estimator = AutoencoderEstimator("vanilla", steps=30, contamination=0.2).fit(X)
    samples = torch.from_numpy(X).float()
    model = estimator.model_
    np.testing.assert_allclose(estimator.reconstruct(X), model.reconstruct(samples), atol=1e-4)
    np.testing.assert_allclose(
        estimator.score_samples(samples), model.score_samples(samples), rtol=1e-4
    )
    assert estimator.score_samples(X, per_feature=True).shape == X.shape
    back = estimator.inverse_transform(estimator.transform(X))
    np.testing.assert_allclose(back, estimator.reconstruct(X), rtol=1e-5, atol=1e-5)
    share = float((estimator.predict(X) == -1).mean())
    assert share == pytest.approx(0.2, abs=0.001)
    assert estimator.sample(3).shape == (3, 64)
    assert estimator.interpolate(X[:2], X[2:4], 5).shape == (2, 5, 64)
    assert "PCA" in str(estimator.fitted_)
    estimator.save_pretrained(tmp_path)
    loaded = AutoencoderEstimator.from_pretrained(tmp_path)
    np.testing.assert_array_equal(loaded.predict(X), estimator.predict(X))
    np.testing.assert_array_equal(loaded.transform(X), estimator.transform(X))
    assert Autoencoder.from_pretrained(tmp_path).threshold == estimator.offset_


def test_codes_and_images():
    images = np.random.default_rng(0).random((60, 1, 8, 8))
    settings = {"stack": "conv", "hidden": (4,), "codebook_size": 8}
    estimator = AutoencoderEstimator("vqvae", settings=settings, steps=5).fit(images)
    codes = estimator.transform(images)
    assert codes.shape == (60, 16)
    assert codes.dtype == np.int64
    np.testing.assert_allclose(
        estimator.inverse_transform(codes), estimator.reconstruct(images), rtol=1e-5, atol=1e-5
    )


def test_a_model_to_start_from_is_not_changed(digits):
    X, _ = digits
    model = variant("vanilla", (64,), code_size=4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    estimator = AutoencoderEstimator(model, steps=5).fit(X)
    assert estimator.transform(X[:3]).shape == (3, 4)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("share", [0, 1])
def test_a_wrong_share_is_refused_before_training(share):
    estimator = AutoencoderEstimator(contamination=share)
    with pytest.raises(ValueError, match="contamination must be in"):
        estimator.fit(np.random.default_rng(0).normal(size=(30, 4)))
    assert not hasattr(estimator, "model_")
