"""Quantizers of the same latents, side by side, whose outputs add up."""

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
    zero_masked,
)
from vqtok.quantizers.gradients import straight_through
from vqtok.quantizers.side_by_side import SideBySideQuantizer


class SummedQuantizer(SideBySideQuantizer):
    """Each layer codes the latents as they are, not what the others leave (Défossez et al., 2024,
    arXiv:2410.00037: Mimi's semantic codebook beside its acoustic ones).

    Args:
        layers: quantizers of one dimension; the codes are those of the first, then of the second,
            and so on. With ``num_codebooks`` below Q, layers whose codebooks are all left out add
            nothing.

    The gradient of the output goes straight to the latents; layers that learn from it
    (:class:`ProjectedQuantizer`) each get it whole.

    Losses: the means of the layers'. Metrics: those that all layers have, [Q].
    """

    def __init__(self, layers: Sequence[Quantizer]) -> None:
        super().__init__("summed", layers)
        if len({layer.dim for layer in layers}) != 1:
            raise ValueError(f"layers differ in dim: {[layer.dim for layer in layers]}")
        self.dim = layers[0].dim

    def forward(
        self, latents: Tensor, mask: Tensor | None = None, *, num_codebooks: int | None = None
    ) -> Quantized:
        check_latents(latents, self.dim, mask)
        used = check_num_codebooks(num_codebooks, len(self.codebook_sizes))
        target = zero_masked(latents.float(), mask)
        results = [
            layer(target, mask, num_codebooks=share)
            for layer, share in zip(self._quantizers(), self._shares(used), strict=True)
            if share
        ]
        total = results[0].quantized
        for result in results[1:]:
            total = total + result.quantized
        if not self.learns_from_output:
            total = straight_through(target, total.detach())
        combined = combine(results, [1 / len(results)] * len(results))
        return Quantized(total.to(latents.dtype), combined.codes, combined.losses, combined.metrics)

    def embed(self, codes: Tensor) -> Tensor:
        check_codes(codes, self.codebook_sizes)
        shares = self._shares(codes.shape[-1])
        parts = torch.split(codes, shares, dim=-1)
        embedded = [
            layer.embed(part)
            for layer, part, share in zip(self._quantizers(), parts, shares, strict=True)
            if share
        ]
        total = embedded[0]
        for part in embedded[1:]:
            total = total + part
        return total

    def initialize(self, latents: Tensor, mask: Tensor | None = None) -> None:
        for layer in self._quantizers():
            layer.initialize(latents, mask)
