from __future__ import annotations

import pytest
import torch

from vqtok.autoencoders import Autoencoder, build_autoencoder
from vqtok.tokenizer import AudioTokenizer


def small_audio_model(
    sample_rate: int = 24_000, hop: int = 64, causal: bool = False
) -> Autoencoder:
    """An untrained spectral model whose codes vary and whose context reaches over frames."""
    torch.manual_seed(0)
    stack = {
        "type": "spectral",
        "channels": 24,
        "blocks": 2,
        "dim": 12,
        "hop": hop,
        "sample_rate": sample_rate,
        "causal": causal,
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


@pytest.fixture(scope="session")
def audio_tokenizer() -> AudioTokenizer:
    """Hop 64 at 24 kHz, three codebooks of 32, blocks of 100 frames."""
    return AudioTokenizer(small_audio_model(), name="small", block=100)


@pytest.fixture(scope="session")
def make_audio_model():
    return small_audio_model
