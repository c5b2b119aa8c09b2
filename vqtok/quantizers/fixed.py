"""A codebook that came with published weights and no longer learns."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vqtok import ops
from vqtok.quantizers.base import Quantized, masked_mean_square, refuse_not_finite
from vqtok.quantizers.codebook import CodebookQuantizer
from vqtok.quantizers.gradients import straight_through
from vqtok.quantizers.usage import Usage

COMPARISONS = ("distance", "angle")
OUTPUTS = ("rows", "directions")


class FixedQuantizer(CodebookQuantizer):
    """Looks up a constant table; how it is compared and what comes out are two choices.

    Published models differ in both: DAC compares angles and gives the rows as they are, Janus in
    transformers compares distances and gives the rows normalised. (With distances and rows, or
    angles and directions, :class:`VectorQuantizer` does the same and can go on learning.)

    Args:
        codebook_size: number of rows K.
        dim: dimension D.
        compare: ``"distance"`` or ``"angle"`` between latents and rows.
        output: ``"rows"`` or, normalised to length 1, their ``"directions"``.

    Losses: ``commitment``, the mean squared distance of latents to what comes out.
    """

    def __init__(
        self, codebook_size: int, dim: int, *, compare: str = "distance", output: str = "rows"
    ) -> None:
        super().__init__(codebook_size, dim)
        if compare not in COMPARISONS or output not in OUTPUTS:
            raise ValueError(
                f"compare must be one of {COMPARISONS} and output one of {OUTPUTS}, "
                f"not {compare!r} and {output!r}"
            )
        self.config: dict[str, Any] = {
            "type": "fixed",
            "codebook_size": codebook_size,
            "dim": dim,
            "compare": compare,
            "output": output,
        }
        self.usage = Usage(codebook_size)
        self.compare = compare
        self.output = output
        self.register_buffer("rows", torch.randn(codebook_size, dim))
        self.rows: Tensor

    def table(self) -> Tensor:
        return self.rows if self.output == "rows" else F.normalize(self.rows, dim=-1)

    def _quantize_rows(self, rows: Tensor, valid: Tensor | None) -> Quantized:
        if not self.training:
            refuse_not_finite(rows)
        nearest = ops.nearest if self.compare == "distance" else ops.nearest_cosine
        codes = nearest(rows.detach(), self.rows, check=False)
        chosen = F.embedding(codes, self.table())
        losses = {"commitment": masked_mean_square(rows, chosen, valid)}
        return Quantized(straight_through(rows, chosen), codes, losses, self.usage(codes, valid))
