"""Training on photos: a tokenizer comes out, its preview is a picture, its score is in dB."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqtok.autoencoders import Autoencoder
from vqtok.errors import UsageError
from vqtok.quantizers import VectorQuantizer
from vqtok.tokenizer import Tokenizer, to_unit_range
from vqtok.training.crops import PhotoCrops
from vqtok.training.data import TrainingData
from vqtok.training.preview import save_preview
from vqtok.training.ranks import this_rank, world_size
from vqtok.training.rounding import round_codebooks, round_to_half
from vqtok.training.task import Inputs, Outcome, Task

_LATENTS_PER_CODE = 8
_BATCHES = 10_000  # more than any codebook needs


class PhotoTask(Task):
    """Batches uint8 [B, 3, S, S] become [-1, 1]; the outcome is a :class:`Tokenizer`."""

    unit = "crops"

    def check(self, model: Autoencoder, data: TrainingData) -> None:
        assert isinstance(data, PhotoCrops)
        downsample = model.encoder.downsample
        if data.size % downsample:
            raise UsageError(f"crops must be a multiple of {downsample} pixels, not {data.size}")

    @torch.no_grad()
    def start(self, model: Autoencoder, data: TrainingData, device: torch.device) -> None:
        """Start a single codebook by k-means on several latents for each code: a batch may have
        fewer latents than a large codebook has codes."""
        quantizer = model.bottleneck
        if not isinstance(quantizer, VectorQuantizer):
            return
        wanted = _LATENTS_PER_CODE * quantizer.codebook_size / world_size()
        latents: list[Tensor] = []
        for batch in data.batches(this_rank(), _BATCHES, world_size()):
            latents.append(model.encode(self.inputs(batch, device).values).flatten(0, -2))
            if sum(map(len, latents)) >= wanted:
                break
        quantizer.train().initialize(torch.cat(latents))

    def inputs(self, batch: Any, device: torch.device) -> Inputs:
        pixels = to_unit_range(batch.to(device))
        return Inputs(pixels.contiguous(memory_format=torch.channels_last))

    def outcome(
        self, model: Autoencoder, *, name: str, training: Mapping[str, Any], device: torch.device
    ) -> Outcome:
        round_to_half(model)
        round_codebooks(model)
        return Tokenizer(model, name=name, training=training).to(device)

    def validate(self, outcome: Outcome, batch: Any, folder: Path | None) -> dict[str, Any]:
        assert isinstance(outcome, Tokenizer)
        return {} if folder is None else {"validation_psnr": save_preview(outcome, batch, folder)}
