"""Residual quantization with a beam search over the levels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

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

_CHUNK_ELEMENTS = 1 << 22  # scores held at a time


class BeamResidualQuantizer(ResidualQuantizer):
    """A :class:`ResidualQuantizer` that, in evaluation, keeps the best few sums at each level
    instead of the best one, and so finds a closer sum of as many codebooks.

    Training is greedy and the state is that of a :class:`ResidualQuantizer`, so that trained
    weights of one load into the other. Unlike there, the first q codes are not what coding with
    ``num_codebooks=q`` gives: a first code may be worse for the sake of the next.

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
            codes = self._search(rows.detach(), used)
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

    def _search(self, rows: Tensor, used: int) -> Tensor:
        """Codes int64 [N, used] of rows [N, D]."""
        tables = [
            layer.embed(torch.arange(size, device=rows.device)[:, None]).detach().double()
            for layer, size in zip(self._quantizers()[:used], self.codebook_sizes, strict=False)
        ]
        step = max(1, _CHUNK_ELEMENTS // (self.beam * max(self.codebook_sizes)))
        chunks = [self._search_chunk(chunk.double(), tables) for chunk in torch.split(rows, step)]
        return torch.cat(chunks)

    def _search_chunk(self, rows: Tensor, tables: Sequence[Tensor]) -> Tensor:
        rest = rows[:, None]
        codes = torch.zeros(len(rows), 1, 0, dtype=torch.int64, device=rows.device)
        for table in tables:
            # Squared norms of what would be left, [n, beam K], in one product of float32 ...
            ones, squares = torch.ones_like(table[:, :1]), table.square().sum(-1, keepdim=True)
            squared = rest.square().sum(-1, keepdim=True)
            lifted = torch.cat([-2 * rest, squared, torch.ones_like(squared)], dim=-1)
            scores = lifted.float() @ torch.cat([table, ones, squares], dim=-1).float().T
            # ... find twice as many sums as are kept; float64 chooses among them.
            width = min(2 * self.beam, scores.shape[1] * scores.shape[2])
            near = scores.flatten(1).topk(width, dim=1, largest=False, sorted=False).indices
            parent, code = near // len(table), near % len(table)
            left = _take(rest, parent) - table[code]
            kept = min(self.beam, width)
            best = left.square().sum(-1).topk(kept, dim=1, largest=False).indices
            rest = _take(left, best)
            found = torch.cat([_take(codes, parent), code[..., None]], dim=-1)
            codes = _take(found, best)
        return codes[:, 0]


def _take(values: Tensor, index: Tensor) -> Tensor:
    """Rows [n, b', ...] of values [n, b, ...] at index [n, b']."""
    return torch.take_along_dim(values, index[..., None].expand(*index.shape, values.shape[-1]), 1)
