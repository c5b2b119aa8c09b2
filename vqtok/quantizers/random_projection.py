"""Random-projection quantization (BEST-RQ: Chiu et al., 2022, arXiv:2202.01855)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vqtok import ops
from vqtok.quantizers.base import Quantized, Quantizer, check_codes, refuse_not_finite
from vqtok.quantizers.gradients import straight_through
from vqtok.quantizers.usage import Usage


class RandomProjectionQuantizer(Quantizer):
    """Targets for masked prediction: a fixed random projection, then the nearest by angle of
    fixed random vectors. Nothing is learned; give it latents of zero mean and unit variance.

    Embeddings are the random vectors taken back through the projection's pseudo-inverse.

    Args:
        codebook_size: number of vectors K.
        dim: dimension D of the latents.
        codebook_dim: dimension of the projection, at most D.

    Losses: none.
    """

    def __init__(self, codebook_size: int, dim: int, *, codebook_dim: int = 16) -> None:
        super().__init__()
        if codebook_size < 1 or not 1 <= codebook_dim <= dim:
            raise ValueError(
                f"codebook_size must be positive and codebook_dim in 1..dim, "
                f"not {codebook_size} and {codebook_dim} of {dim}"
            )
        self.config: dict[str, Any] = {
            "type": "random_projection",
            "codebook_size": codebook_size,
            "dim": dim,
            "codebook_dim": codebook_dim,
        }
        self.codebook_size = codebook_size
        self.dim = dim
        self.usage = Usage(codebook_size)
        projection = torch.nn.init.xavier_uniform_(torch.empty(dim, codebook_dim))
        self.register_buffer("projection", projection)
        self.register_buffer("back", torch.linalg.pinv(projection.double()).float())
        vectors = F.normalize(torch.randn(codebook_size, codebook_dim), dim=-1)
        self.register_buffer("vectors", vectors)
        self.projection: Tensor
        self.back: Tensor
        self.vectors: Tensor

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return (self.codebook_size,)

    def _quantize_rows(self, rows: Tensor, valid: Tensor | None) -> Quantized:
        if not self.training:
            refuse_not_finite(rows)
        # float64, so that the codes don't depend on how a matrix product adds up.
        projected = rows.detach().double() @ self.projection.double()
        codes = ops.nearest_cosine(projected, self.vectors, check=False)
        quantized = straight_through(rows, F.embedding(codes, self.vectors) @ self.back)
        return Quantized(quantized, codes, {}, self.usage(codes, valid))

    def embed(self, codes: Tensor) -> Tensor:
        check_codes(codes, self.codebook_sizes)
        return F.embedding(codes[..., 0].long(), self.vectors) @ self.back
