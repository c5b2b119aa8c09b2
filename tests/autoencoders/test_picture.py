"""The distance of pictures against its definition in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vqtok.autoencoders import build_autoencoder, preset_config
from vqtok.autoencoders.likelihoods import LIKELIHOODS, PictureDistance


def definition(output: np.ndarray, target: np.ndarray, edges: float) -> float:
    error = (output - target).astype(np.float64)
    loss = (error**2).mean()
    for _ in range(3):
        across = np.abs(error[..., :, 1:] - error[..., :, :-1]).mean()
        down = np.abs(error[..., 1:, :] - error[..., :-1, :]).mean()
        loss += edges * (across + down) / 6
        error = (
            error[..., ::2, ::2]
            + error[..., 1::2, ::2]
            + error[..., ::2, 1::2]
            + error[..., 1::2, 1::2]
        ) / 4
    return float(loss)


def test_it_is_what_it_says() -> None:
    rng = np.random.default_rng(0)
    output, target = rng.uniform(-1, 1, (2, 3, 3, 16, 24)).astype(np.float32)
    for edges in (0.0, 0.1, 2.0):
        found = PictureDistance(edges=edges)(torch.from_numpy(output), torch.from_numpy(target))
        assert float(found) == pytest.approx(definition(output, target, edges), rel=1e-5)


def test_a_model_keeps_it() -> None:
    config = preset_config("photo-lm", edges=0.25)
    assert config["likelihood"] == {"type": "picture", "edges": 0.25}
    model = build_autoencoder(config)
    assert model.config == config
    assert isinstance(model.likelihood, LIKELIHOODS["picture"])
    assert preset_config("photo-lm")["reconstruction_loss"] == "mse"
    for wrong in (-1, "much", float("nan"), float("inf")):
        with pytest.raises(ValueError, match="edges must be a weight"):
            preset_config("photo-lm", edges=wrong)
