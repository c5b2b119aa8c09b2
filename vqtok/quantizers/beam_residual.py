"""Residual quantization with a beam search over the levels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vqtok import ops
from vqtok.quantizers.base import (
    Quantized,
    Quantizer,
    as_rows,
    check_latents,
    check_num_codebooks,
    masked_mean_square,
    refuse_not_finite,
    zero_masked,
)
from vqtok.quantizers.residual import ResidualQuantizer


class BeamResidualQuantizer(ResidualQuantizer):
    """A :class:`ResidualQuantizer` that, in evaluation, keeps the best few sums at each level
    instead of the best one, and so finds a closer sum of as many codebooks.

    Training is greedy and the state is that of a :class:`ResidualQuantizer`, so that trained
    weights of one load into the other. Unlike there, the first q codes are not what coding with
    ``num_codebooks=q`` gives: a first code may be worse for the sake of the next. The search is
    :func:`vqtok.ops.beam_search`, which also says how ties are settled.

    Args:
        layers, dropout, gradient: as for :class:`ResidualQuantizer`. Each codebook is held as a
            table during the search.
        beam: how many sums are kept, at least 1 (which is greedy).
    """

    def __init__(
        self,
        layers: Sequence[Quantizer],
        *,
        beam: int = 8,
        dropout: float = 0.0,
        gradient: str = "straight_through",
    ) -> None:
        super().__init__(layers, dropout=dropout, gradient=gradient)
        if beam < 1:
            raise ValueError(f"beam must be at least 1, not {beam}")
        self.config.update(type="beam_residual", beam=beam)
        self.beam = beam

    def forward(
        self, latents: Tensor, mask: Tensor | None = None, *, num_codebooks: int | None = None
    ) -> Quantized:
        if self.training:
            return super().forward(latents, mask, num_codebooks=num_codebooks)
        check_latents(latents, self.dim, mask)
        used = check_num_codebooks(num_codebooks, len(self.codebook_sizes))
        with torch.autocast(latents.device.type, enabled=False):
            target = zero_masked(latents.float(), mask)
            rows, valid = as_rows(target, mask)
            refuse_not_finite(rows)
            tables = [
                layer.embed(torch.arange(size, device=rows.device)[:, None]).detach()
                for layer, size in zip(self._quantizers(), self.codebook_sizes[:used], strict=False)
            ]
            codes = ops.beam_search(rows.detach(), tables, self.beam, check=False)
            if valid is not None:
                nobody = valid.new_zeros(1)
                blank = super().forward(rows.new_zeros(1, self.dim), nobody, num_codebooks=used)
                codes = torch.where(valid[:, None], codes, blank.codes)
            total = self.embed(codes).reshape(target.shape)
            quantized = self.pass_gradient(target, total)
        return Quantized(
            quantized.to(latents.dtype),
            codes.reshape(*latents.shape[:-1], used),
            {"commitment": masked_mean_square(target, total.detach(), mask)},
            self.metrics(codes, valid),
        )
