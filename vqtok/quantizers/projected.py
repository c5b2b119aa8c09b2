"""Factorised codebooks: quantize in few dimensions (Yu et al., 2021, arXiv:2110.04627)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtok.quantizers.base import (
    Quantized,
    Quantizer,
    check_codes,
    check_latents,
    check_num_codebooks,
    zero_masked,
)


class ProjectedQuantizer(Quantizer):
    """Any quantizer between two learned linear layers, of latents of another dimension.

    A codebook of few dimensions is used more evenly; FSQ, LFQ and BSQ, whose dimension is given
    by their codebook, fit latents of any dimension.

    Args:
        layer: the quantizer, of dimension ``layer.dim``.
        dim: dimension D of the latents.

    Losses: those of the layer, in its dimensions.
    """

    def __init__(self, layer: Quantizer, *, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim must be positive, not {dim}")
        self.config: dict[str, Any] = {"type": "projected", "layer": layer.config, "dim": dim}
        self.dim = dim
        self.layer: Quantizer = layer
        self.project_in = nn.Linear(dim, layer.dim)
        self.project_out = nn.Linear(layer.dim, dim)

    @property
    def learns_from_output(self) -> bool:
        return True

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return self.layer.codebook_sizes

    def forward(
        self, latents: Tensor, mask: Tensor | None = None, *, num_codebooks: int | None = None
    ) -> Quantized:
        check_latents(latents, self.dim, mask)
        check_num_codebooks(num_codebooks, len(self.codebook_sizes))
        with torch.autocast(latents.device.type, enabled=False):
            rows = zero_masked(latents.float(), mask)
            result = self.layer(self._project_in(rows), mask, num_codebooks=num_codebooks)
            quantized = self.project_out(result.quantized)
        return Quantized(quantized.to(latents.dtype), result.codes, result.losses, result.metrics)

    def embed(self, codes: Tensor) -> Tensor:
        check_codes(codes, self.codebook_sizes)
        embedded: Tensor = self.project_out(self.layer.embed(codes))
        return embedded

    def metrics(self, codes: Tensor, valid: Tensor | None) -> dict[str, Tensor]:
        return self.layer.metrics(codes, valid)

    @torch.no_grad()
    def codes_of(self, quantized: Tensor) -> Tensor:
        """As for every quantizer, if the layer has no more dimensions than the latents."""
        back = torch.linalg.pinv(self.project_out.weight.double())
        inner = (quantized.double() - self.project_out.bias.double()) @ back.T
        return self.layer.codes_of(inner.float())

    def initialize(self, latents: Tensor, mask: Tensor | None = None) -> None:
        with torch.no_grad():
            rows = self._project_in(zero_masked(latents.float(), mask))
        self.layer.initialize(rows, mask)

    def _project_in(self, rows: Tensor) -> Tensor:
        if self.training:
            low: Tensor = self.project_in(rows)
            return low
        # float64, so that the codes don't depend on how a matrix product adds up.
        weight, bias = self.project_in.weight.double(), self.project_in.bias.double()
        return F.linear(rows.double(), weight, bias).float()
