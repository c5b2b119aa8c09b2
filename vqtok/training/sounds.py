"""Training on sounds: a tokenizer comes out, its score is how far reconstructions are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vqtok.autoencoders import Autoencoder
from vqtok.errors import UsageError
from vqtok.nn.sound import SoundStack
from vqtok.nn.sound_losses import SoundLoss
from vqtok.tokenizer import Tokenizer
from vqtok.training.adversary import Adversary
from vqtok.training.audio_crops import AudioCrops
from vqtok.training.data import TrainingData
from vqtok.training.rounding import round_codebooks, round_to_half
from vqtok.training.task import Inputs, Outcome, Task


class SoundTask(Task):
    """Batches float32 [B, T] go in as they are; the outcome is an audio tokenizer.

    Args:
        adversary: trained against the model, such as a ``SoundAdversary``.
    """

    unit = "excerpts"

    def __init__(self, adversary: Adversary | None = None) -> None:
        self.adversary = adversary

    def check(self, model: Autoencoder, data: TrainingData) -> None:
        encoder = model.encoder
        assert isinstance(data, AudioCrops)
        if not isinstance(encoder, SoundStack):
            raise UsageError("this model is not made for sound; choose the preset audio")
        if data.size % encoder.hop:
            raise UsageError(f"crops must be a multiple of {encoder.hop} samples, not {data.size}")
        if data.sample_rate != encoder.sample_rate:
            raise UsageError(f"the model is for {encoder.sample_rate} Hz, not {data.sample_rate}")

    def inputs(self, batch: Any, device: torch.device) -> Inputs:
        return Inputs(batch.to(device))

    def outcome(
        self, model: Autoencoder, *, name: str, training: Mapping[str, Any], device: torch.device
    ) -> Outcome:
        round_to_half(model)
        round_codebooks(model)
        return Tokenizer(model, name=name, training=training).to(device)

    @torch.no_grad()
    def validate(self, outcome: Outcome, batch: Any, folder: Path | None) -> dict[str, Any]:
        """Distances with all codebooks and with none (``unquantized``): what the codes cost."""
        assert isinstance(outcome, Tokenizer)
        model, wave = outcome.autoencoder, batch.to(outcome.device)
        assert isinstance(model.encoder, SoundStack)
        loss = SoundLoss(model.encoder.sample_rate).to(outcome.device)
        latents = model.encoder(wave)
        outputs = {
            "validation": model.decoder(model.quantizer(latents).quantized),
            "validation_unquantized": model.decoder(latents),
        }
        return {
            key: {name: round(float(term), 5) for name, term in loss.terms(output, wave).items()}
            for key, output in outputs.items()
        }
