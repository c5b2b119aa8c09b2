"""SimVQ: a frozen codebook behind one linear layer (Zhu et al., 2024, arXiv:2411.02038)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtok import ops
from vqtok.quantizers.base import Quantized, Quantizer, check_codes, masked_mean_square
from vqtok.quantizers.gradients import GRADIENTS
from vqtok.quantizers.kmeans import code_counts
from vqtok.quantizers.usage import usage_of_counts


class SimVQ(Quantizer):
    """The embeddings are a linear map of fixed random vectors: each step moves all of them.

    Args:
        codebook_size: number of embeddings K.
        dim: their dimension D.
        gradient: ``"straight_through"`` or ``"rotation"``.

    Losses: ``commitment`` and ``codebook``, as for a
    :class:`~vqtok.quantizers.vector.VectorQuantizer` (published weights 0.25 and 1).
    Metrics: ``perplexity`` and ``usage`` [1].
    """

    def __init__(self, codebook_size: int, dim: int, *, gradient: str = "straight_through") -> None:
        super().__init__()
        if codebook_size < 1 or dim < 1 or gradient not in GRADIENTS:
            raise ValueError(
                f"codebook_size and dim must be positive and gradient one of {tuple(GRADIENTS)}, "
                f"not {codebook_size}, {dim} and {gradient!r}"
            )
        self.config: dict[str, Any] = {
            "type": "simvq",
            "codebook_size": codebook_size,
            "dim": dim,
            "gradient": gradient,
        }
        self.codebook_size = codebook_size
        self.dim = dim
        self.pass_gradient = GRADIENTS[gradient]
        self.register_buffer("vectors", torch.randn(codebook_size, dim) * dim**-0.5)
        self.vectors: Tensor
        self.transform = nn.Linear(dim, dim, bias=False)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return (self.codebook_size,)

    def _quantize_rows(self, rows: Tensor, valid: Tensor | None) -> Quantized:
        table: Tensor = self.transform(self.vectors)
        codes = ops.nearest(rows.detach(), table.detach(), check=not self.training)
        chosen = F.embedding(codes, table)
        losses = {
            "commitment": masked_mean_square(rows - chosen.detach(), valid),
            "codebook": masked_mean_square(rows.detach() - chosen, valid),
        }
        metrics = usage_of_counts(code_counts(codes, self.codebook_size, valid))
        return Quantized(self.pass_gradient(rows, chosen.detach()), codes, losses, metrics)

    def embed(self, codes: Tensor) -> Tensor:
        check_codes(codes, self.codebook_sizes)
        return F.embedding(codes[..., 0].long(), self.transform(self.vectors))
