"""Autoencoders as scikit-learn estimators (extra ``sklearn``): pipelines, ``clone``, grid search.

from vqtok.estimator import AutoencoderEstimator

detector = AutoencoderEstimator("denoising", settings={"code_size": 8}, contamination=0.05)
labels = detector.fit(X).predict(X_new)      # -1 where an anomaly
why = detector.score_samples(X_new, per_feature=True)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    OutlierMixin,
    TransformerMixin,
)
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from vqtok.autoencoders import Autoencoder, variant
from vqtok.training.fit import check_contamination, default_config, fit

Array = npt.NDArray[Any]


class AutoencoderEstimator(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    OutlierMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """A variant fitted to the rows of a table, or to samples of any one shape [N, ...].

    Args:
        variant: a name in ``vqtok.autoencoders.VARIANTS``, or an Autoencoder to start from (its
            config; it is not changed).
        settings: of the variant: code_size, hidden, noise, ...
        steps, batch_size, learning_rate: of training.
        held_out: share of the data to judge by.
        contamination: share of the training data that counts as anomalies; sets the threshold
            of ``predict``.
        random_state: of everything random.

    Attributes:
        model_: the :class:`Autoencoder`.
        fitted_: the report, with PCA and the mean beside the model; prints as a table.
        offset_: scores below it are anomalies.
        n_features_in_: features (the first dimension of a sample, if it has several).
    """

    def __init__(
        self,
        variant: str | Autoencoder = "vanilla",
        *,
        settings: Mapping[str, Any] | None = None,
        steps: int = 2000,
        batch_size: int = 128,
        learning_rate: float = 2e-3,
        held_out: float = 0.1,
        contamination: float = 0.1,
        random_state: Any = 0,
    ) -> None:
        self.variant = variant
        self.settings = settings
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.held_out = held_out
        self.contamination = contamination
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> AutoencoderEstimator:
        """Train on X [N, ...]; y is ignored."""
        check_contamination(self.contamination)
        samples = self._validated(X, reset=True)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        config = default_config(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=seed,
        )
        model = self.variant
        if isinstance(model, str):
            torch.manual_seed(seed)
            model = variant(model, samples.shape[1:], **(self.settings or {}))
        self.fitted_ = fit(model, samples, config, held_out=self.held_out)
        self.model_ = self.fitted_.model
        scores = self._precise().score_samples(samples)
        self.offset_ = float(np.quantile(scores, self.contamination))
        self.model_.threshold = self.offset_
        self._sample_shape = samples.shape[1:]
        code = self._precise().transform(samples[:1])
        self._code_shape = tuple(code.shape[1:])
        self._n_features_out = int(np.prod(self._code_shape))
        return self

    def transform(self, X: Any) -> Array:
        """X [N, ...] to codes [N, F']: values, or the integer codes of a quantizer, flattened."""
        samples = self._checked(X)
        code: Array = np.asarray(self._precise().transform(samples))
        return code.reshape(len(samples), -1)

    def inverse_transform(self, X: Any) -> Array:
        """Codes [N, F'] back to samples."""
        check_is_fitted(self)
        codes: Any = np.asarray(X).reshape(-1, *self._code_shape)
        made: Array = np.asarray(self._precise().inverse_transform(codes))
        return made

    def reconstruct(self, X: Any) -> Array:
        """X [N, ...] to what the decoder makes of it, same shape."""
        made: Array = np.asarray(self._precise().reconstruct(self._checked(X)))
        return made

    def score_samples(self, X: Any, *, per_feature: bool = False) -> Array:
        """How normal each sample is, in nats: [N], or one number per value."""
        samples = self._checked(X)
        scores: Array = np.asarray(self._precise().score_samples(samples, per_feature=per_feature))
        return scores

    def decision_function(self, X: Any) -> Array:
        """Scores above the threshold: negative where an anomaly, [N]."""
        scores: Array = self.score_samples(X) - self.offset_
        return scores

    def predict(self, X: Any) -> Array:
        """-1 where an anomaly, else 1; int64 [N]."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of :meth:`score_samples`: larger is better."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, *, seed: int = 0) -> Array:
        """New samples [n_samples, ...]."""
        check_is_fitted(self)
        made: Array = self.model_.sample(n_samples, seed=seed).cpu().numpy()
        return made

    def interpolate(self, first: Any, second: Any, steps: int = 8) -> Array:
        """[N, steps, ...] between two batches of samples."""
        made = self._precise().interpolate(self._checked(first), self._checked(second), steps)
        return np.asarray(made)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model; ``Autoencoder.from_pretrained`` loads it, without scikit-learn."""
        check_is_fitted(self)
        self.model_.save_pretrained(folder)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> AutoencoderEstimator:
        """An estimator around a saved model, ready to use."""
        model = Autoencoder.from_pretrained(folder)
        estimator = cls(model)
        estimator.model_ = model
        estimator.offset_ = -np.inf if model.threshold is None else model.threshold
        assert model.scaling is not None or model.density is not None
        shape = model.encoder.config.get("shape")
        if shape is not None:
            estimator._sample_shape = tuple(shape)
            estimator.n_features_in_ = shape[0]
            code = model.transform(torch.zeros(1, *shape))
            estimator._code_shape = tuple(code.shape[1:])
            estimator._n_features_out = int(np.prod(estimator._code_shape))
        return estimator

    def _checked(self, X: Any) -> Any:
        check_is_fitted(self)
        return self._validated(X, reset=False)

    def _precise(self) -> Autoencoder:
        """The model in float64: scores then don't depend, in any digit that shows, on which
        samples are scored together."""
        return copy.deepcopy(self.model_).double()

    def _validated(self, X: Any, *, reset: bool) -> Any:
        if isinstance(X, torch.Tensor):
            X = X.detach().cpu().numpy()
        minimum = 2 if reset else 1
        return validate_data(
            self, X, reset=reset, dtype=np.float64, allow_nd=True, ensure_min_samples=minimum
        )
