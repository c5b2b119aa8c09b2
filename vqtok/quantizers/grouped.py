"""Grouped (product) quantization: each share of the dimensions has codebooks of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vqtok.quantizers.base import (
    Quantized,
    Quantizer,
    check_codes,
    check_latents,
    check_num_codebooks,
    combine,
)
from vqtok.quantizers.side_by_side import SideBySideQuantizer


class GroupedQuantizer(SideBySideQuantizer):
    """Quantizers side by side (Jegou et al., 2011): the first takes the first dimensions.

    Args:
        layers: quantizers of any kind and dimension; D is the sum, and the codes are those of
            the first layer, then those of the second, and so on.

    With ``num_codebooks`` below Q, dimensions whose codebooks are all left out are 0.

    Losses: the layers', weighted by their dimensions.
    """

    def __init__(self, layers: Sequence[Quantizer]) -> None:
        super().__init__("grouped", layers)
        self.dim = sum(layer.dim for layer in layers)

    def forward(
        self, latents: Tensor, mask: Tensor | None = None, *, num_codebooks: int | None = None
    ) -> Quantized:
        check_latents(latents, self.dim, mask)
        used = check_num_codebooks(num_codebooks, len(self.codebook_sizes))
        results: list[Quantized] = []
        parts: list[Tensor] = []
        for layer, share, part in zip(
            self._quantizers(), self._shares(used), self._split(latents), strict=True
        ):
            if share:
                results.append(layer(part, mask, num_codebooks=share))
                parts.append(results[-1].quantized)
            else:
                parts.append(torch.zeros_like(part))
        dims = [layer.dim for layer in self._quantizers()[: len(results)]]
        combined = combine(results, [dim / sum(dims) for dim in dims])
        return Quantized(
            torch.cat(parts, dim=-1), combined.codes, combined.losses, combined.metrics
        )

    def embed(self, codes: Tensor) -> Tensor:
        check_codes(codes, self.codebook_sizes)
        parts: list[Tensor] = []
        start = 0
        for layer, share in zip(self._quantizers(), self._shares(codes.shape[-1]), strict=True):
            if share:
                parts.append(layer.embed(codes[..., start : start + share]))
            else:
                parts.append(torch.zeros(*codes.shape[:-1], layer.dim, device=codes.device))
            start += share
        return torch.cat(parts, dim=-1)

    def codes_of(self, quantized: Tensor) -> Tensor:
        parts = zip(self._quantizers(), self._split(quantized), strict=True)
        return torch.cat([layer.codes_of(part) for layer, part in parts], dim=-1)

    def initialize(self, latents: Tensor, mask: Tensor | None = None) -> None:
        for layer, part in zip(self._quantizers(), self._split(latents), strict=True):
            layer.initialize(part, mask)

    def _split(self, latents: Tensor) -> tuple[Tensor, ...]:
        return torch.split(latents, [layer.dim for layer in self._quantizers()], dim=-1)
