"""SimVQ: a frozen codebook behind one linear layer (Zhu et al., 2024, arXiv:2411.02038)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vqtok import ops
from vqtok.quantizers.base import Quantized, masked_mean_square
from vqtok.quantizers.codebook import CodebookQuantizer
from vqtok.quantizers.gradients import GRADIENTS
from vqtok.quantizers.usage import Usage


class SimVQ(CodebookQuantizer):
    """The embeddings are a linear map of fixed random vectors: each step moves all of them.

    Args:
        codebook_size: number of embeddings K.
        dim: their dimension D.
        gradient: ``"straight_through"`` or ``"rotation"``.

    Losses: ``commitment`` and ``codebook``, as for a
    :class:`~vqtok.quantizers.vector.VectorQuantizer` (published weights 0.25 and 1).
    """

    def __init__(self, codebook_size: int, dim: int, *, gradient: str = "straight_through") -> None:
        super().__init__(codebook_size, dim)
        if gradient not in GRADIENTS:
            raise ValueError(f"gradient must be one of {tuple(GRADIENTS)}, not {gradient!r}")
        self.config: dict[str, Any] = {
            "type": "simvq",
            "codebook_size": codebook_size,
            "dim": dim,
            "gradient": gradient,
        }
        self.usage = Usage(codebook_size)
        self.pass_gradient = GRADIENTS[gradient]
        self.register_buffer("vectors", torch.randn(codebook_size, dim) * dim**-0.5)
        self.vectors: Tensor
        self.transform = nn.Linear(dim, dim, bias=False)

    def table(self) -> Tensor:
        table: Tensor = self.transform(self.vectors)
        return table

    def _quantize_rows(self, rows: Tensor, valid: Tensor | None) -> Quantized:
        chosen, codes = ops.quantize(rows.detach(), [self.table()], check=not self.training)
        codes = codes[:, 0]
        losses = {
            "commitment": masked_mean_square(rows, chosen.detach(), valid),
            "codebook": masked_mean_square(rows.detach(), chosen, valid),
        }
        quantized = self.pass_gradient(rows, chosen.detach())
        return Quantized(quantized, codes, losses, self.usage(codes, valid))
