"""Index backpropagation quantization (Shi et al., 2024, arXiv:2412.02692)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtok import ops
from vqtok.quantizers.base import Quantized, Quantizer, check_codes, masked_mean_square
from vqtok.quantizers.gradients import straight_through
from vqtok.quantizers.kmeans import code_counts
from vqtok.quantizers.products import largest_product
from vqtok.quantizers.usage import softmax_code_losses, usage_of_counts


class IBQ(Quantizer):
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
    Metrics: ``perplexity`` and ``usage`` [1].
    """

    def __init__(
        self, codebook_size: int, dim: int, *, temperature: float = 0.01, cosine: bool = False
    ) -> None:
        super().__init__()
        if codebook_size < 1 or dim < 1 or temperature <= 0:
            raise ValueError(
                f"codebook_size, dim and temperature must be positive, "
                f"not {codebook_size}, {dim}, {temperature}"
            )
        self.config: dict[str, Any] = {
            "type": "ibq",
            "codebook_size": codebook_size,
            "dim": dim,
            "temperature": temperature,
            "cosine": cosine,
        }
        self.codebook_size = codebook_size
        self.dim = dim
        self.temperature = temperature
        self.cosine = cosine
        # Equal norms: a longer embedding would win more dot products.
        self.embeddings = nn.Parameter(F.normalize(torch.randn(codebook_size, dim), dim=-1))

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return (self.codebook_size,)

    def _quantize_rows(self, rows: Tensor, valid: Tensor | None) -> Quantized:
        table = self._lookup_table()
        if self.cosine:
            rows = F.normalize(rows, dim=-1)
        codes = largest_product(rows.detach(), table.detach(), check=not self.training)
        chosen = F.embedding(codes, table)
        losses = {
            "commitment": masked_mean_square(rows - chosen.detach(), valid),
            "codebook": masked_mean_square(rows.detach() - chosen, valid),
        }
        quantized = straight_through(rows, chosen)
        if self.training:
            logits = rows @ table.T
            expected = logits.softmax(dim=-1) @ table.detach()
            # The one-hot code with the softmax's gradient, times the codebook.
            quantized = chosen + (expected - expected.detach())
            losses["index"] = masked_mean_square(quantized - rows, valid)
            losses.update(softmax_code_losses(logits / self.temperature, valid))
        metrics = usage_of_counts(code_counts(codes, self.codebook_size, valid))
        return Quantized(quantized, codes, losses, metrics)

    def embed(self, codes: Tensor) -> Tensor:
        check_codes(codes, self.codebook_sizes)
        return F.embedding(codes[..., 0].long(), self._lookup_table())

    def codes_of(self, quantized: Tensor) -> Tensor:
        rows = quantized.detach().reshape(-1, self.dim)
        codes = ops.nearest(rows, self._lookup_table().detach())
        return codes.reshape(*quantized.shape[:-1], 1)

    def _lookup_table(self) -> Tensor:
        return F.normalize(self.embeddings, dim=-1) if self.cosine else self.embeddings
