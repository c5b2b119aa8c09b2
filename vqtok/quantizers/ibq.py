"""Index backpropagation quantization (Shi et al., 2024, arXiv:2412.02692)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtok import ops
from vqtok.quantizers.base import Quantized, masked_mean_square
from vqtok.quantizers.codebook import CodebookQuantizer
from vqtok.quantizers.gradients import straight_through
from vqtok.quantizers.soft_codes import softmax_code_losses
from vqtok.quantizers.usage import Usage


class IBQ(CodebookQuantizer):
    """The code with the largest dot product; the gradient passes the softmax over all codes, so
    that every step moves every embedding.

    Training holds an N x K matrix, which is the method; evaluation does not.

    Args:
        codebook_size: number of embeddings K.
        dim: their dimension D.
        temperature: of the softmax in the entropy terms.
        cosine: latents and embeddings live on the unit sphere.

    Losses: ``commitment``, ``codebook``, and in training ``index``, the mean squared distance of
    latents to the embeddings with the gradient of the softmax, ``entropy`` and ``diversity``
    (published weights 1, 0.25, 1, 0.05, 0.05).
    """

    def __init__(
        self, codebook_size: int, dim: int, *, temperature: float = 0.01, cosine: bool = False
    ) -> None:
        super().__init__(codebook_size, dim)
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        self.config: dict[str, Any] = {
            "type": "ibq",
            "codebook_size": codebook_size,
            "dim": dim,
            "temperature": temperature,
            "cosine": cosine,
        }
        self.usage = Usage(codebook_size)
        self.temperature = temperature
        self.cosine = cosine
        # Equal norms: a longer embedding would win more dot products.
        self.embeddings = nn.Parameter(F.normalize(torch.randn(codebook_size, dim), dim=-1))

    @property
    def learns_from_output(self) -> bool:
        return True

    def table(self) -> Tensor:
        return F.normalize(self.embeddings, dim=-1) if self.cosine else self.embeddings

    def _quantize_rows(self, rows: Tensor, valid: Tensor | None) -> Quantized:
        table = self.table()
        if self.cosine:
            rows = F.normalize(rows, dim=-1)
        codes = ops.largest_product(rows.detach(), table.detach(), check=not self.training)
        chosen = F.embedding(codes, table)
        losses = {
            "commitment": masked_mean_square(rows, chosen.detach(), valid),
            "codebook": masked_mean_square(rows.detach(), chosen, valid),
        }
        quantized = straight_through(rows, chosen)
        if self.training:
            logits = rows @ table.T
            expected = logits.softmax(dim=-1) @ table.detach()
            # The one-hot code with the softmax's gradient, times the codebook.
            quantized = chosen + (expected - expected.detach())
            losses["index"] = masked_mean_square(quantized, rows, valid)
            losses.update(softmax_code_losses(logits / self.temperature, valid))
        return Quantized(quantized, codes, losses, self.usage(codes, valid))
