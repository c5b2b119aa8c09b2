"""Latents drawn softly into a box before they are quantized."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vqtok.quantizers.base import (
    Quantized,
    Quantizer,
    check_latents,
    refuse_not_finite,
    zero_masked,
)


class SquashedQuantizer(Quantizer):
    """Any quantizer after ``limit * tanh(latent / limit)``.

    Grids that clamp (:class:`ClampedFSQ`) so still pass a gradient to latents outside of them; what
    comes out is not stretched again.

    Args:
        layer: the quantizer, of the same dimension D.
        limit: of each dimension, positive.

    Losses and metrics: those of the layer.
    """

    def __init__(self, layer: Quantizer, *, limit: Sequence[float]) -> None:
        super().__init__()
        if len(limit) != layer.dim or not all(size > 0 for size in limit):
            raise ValueError(f"limit must be {layer.dim} positive numbers, not {list(limit)}")
        self.config: dict[str, Any] = {
            "type": "squashed",
            "layer": layer.config,
            "limit": [float(size) for size in limit],
        }
        self.dim = layer.dim
        self.layer: Quantizer = layer
        self.register_buffer("limit", torch.tensor(self.config["limit"]), persistent=False)
        self.limit: Tensor

    @property
    def learns_from_output(self) -> bool:
        return self.layer.learns_from_output

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return self.layer.codebook_sizes

    def forward(
        self, latents: Tensor, mask: Tensor | None = None, *, num_codebooks: int | None = None
    ) -> Quantized:
        check_latents(latents, self.dim, mask)
        with torch.autocast(latents.device.type, enabled=False):
            rows = zero_masked(latents.float(), mask)
            if not self.training:  # infinity would be squashed, too
                refuse_not_finite(rows)
            squashed = self._squash(rows)
            result = self.layer(squashed, mask, num_codebooks=num_codebooks)
        return Quantized(
            result.quantized.to(latents.dtype), result.codes, result.losses, result.metrics
        )

    def embed(self, codes: Tensor) -> Tensor:
        return self.layer.embed(codes)

    def metrics(self, codes: Tensor, valid: Tensor | None) -> dict[str, Tensor]:
        return self.layer.metrics(codes, valid)

    def codes_of(self, quantized: Tensor) -> Tensor:
        return self.layer.codes_of(quantized)

    def initialize(self, latents: Tensor, mask: Tensor | None = None) -> None:
        self.layer.initialize(self._squash(zero_masked(latents.float(), mask)), mask)

    def _squash(self, rows: Tensor) -> Tensor:
        return self.limit * torch.tanh(rows / self.limit)
