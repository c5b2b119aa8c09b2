"""Training whose outcome is an autoencoder: its latents' density is learned, its score logged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqtok.autoencoders import Autoencoder
from vqtok.autoencoders.scalings import Scaling
from vqtok.nn import DictionaryDecoder
from vqtok.training.task import Inputs, Outcome, Task


class AutoencodingTask(Task):
    """Batches are tensors [B, ...] or :class:`Inputs`; the outcome is an :class:`Autoencoder`.

    Args:
        sample: training data from which the density of the latents is learned.
        scaling: learned from the training data; the model gets its state.
    """

    unit = "samples"

    def __init__(self, sample: Inputs, scaling: Scaling | None = None) -> None:
        self.sample = sample
        self.scaling = scaling

    def prepare(self, model: Autoencoder) -> None:
        if self.scaling is not None and model.scaling is not None:
            model.scaling.load_state_dict(self.scaling.state_dict())
        if isinstance(model.decoder, DictionaryDecoder):
            model.decoder.start_from(model.scaled(self.sample.values))
            model.decoder.pair(model.encoder)

    def inputs(self, batch: Any, device: torch.device) -> Inputs:
        if isinstance(batch, Tensor):
            return Inputs(batch.to(device))
        assert isinstance(batch, Inputs)
        mask = None if batch.mask is None else batch.mask.to(device)
        return Inputs(batch.values.to(device), mask)

    def outcome(
        self, model: Autoencoder, *, name: str, training: Mapping[str, Any], device: torch.device
    ) -> Outcome:
        model.to(device).eval().requires_grad_(False)
        model.name = name
        model.provenance = dict(training)
        model.fit_density(self.sample.values, self.sample.mask)
        return model

    def validate(self, outcome: Outcome, batch: Any, folder: Path | None) -> dict[str, Any]:
        assert isinstance(outcome, Autoencoder)
        inputs = self.inputs(batch, outcome.device)
        scores = outcome.score_samples(inputs.values, inputs.mask)
        return {"validation_score": round(float(scores.mean()), 6)}
