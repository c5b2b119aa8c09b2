"""Quantizers whose embeddings are the rows of one table."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from vqtok import ops
from vqtok.quantizers.base import Quantizer, check_codes


class CodebookQuantizer(Quantizer):
    """A :class:`Quantizer` of one codebook that is a table [K, D]; subclasses say which."""

    codebook_size: int

    def __init__(self, codebook_size: int, dim: int) -> None:
        super().__init__()
        if codebook_size < 1 or dim < 1:
            raise ValueError(f"codebook_size and dim must be positive, not {codebook_size}, {dim}")
        self.codebook_size = codebook_size
        self.dim = dim

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return (self.codebook_size,)

    @abstractmethod
    def table(self) -> Tensor:
        """The embeddings, float32 [K, D]."""

    def embed(self, codes: Tensor) -> Tensor:
        check_codes(codes, self.codebook_sizes)
        return F.embedding(codes[..., 0].long(), self.table())

    @torch.no_grad()
    def codes_of(self, quantized: Tensor) -> Tensor:
        codes = ops.nearest(quantized.reshape(-1, self.dim), self.table())
        return codes.reshape(*quantized.shape[:-1], 1)
