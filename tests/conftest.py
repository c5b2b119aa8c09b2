from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from vqtok.autoencoders import Autoencoder

# Before scipy is imported: without it scikit-learn skips one of its estimator checks.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

settings.register_profile("patient", deadline=None)  # on a busy machine any example may be slow
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def make_audio_model():
    return small_audio_model


def small_audio_model(sample_rate: int = 24_000, hop: int = 64, **settings: Any) -> Autoencoder:
    """An untrained spectral model whose codes vary and whose context reaches over frames."""
    import torch

    from vqtok.autoencoders import build_autoencoder

    torch.manual_seed(0)
    stack = {
        "type": "spectral",
        "channels": 24,
        "blocks": 2,
        "dim": 12,
        "hop": hop,
        "sample_rate": sample_rate,
        **settings,
    }
    layer = {"type": "vector", "codebook_size": 32, "dim": 12}
    model = build_autoencoder(
        {
            "encoder": stack,
            "quantizer": {"type": "residual", "layers": [layer] * 3},
            "decoder": stack,
            "reconstruction_loss": "mse",
            "loss_weights": {},
        }
    )
    for name, parameter in model.named_parameters():
        if "layers" in name and parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.15)
    return model
