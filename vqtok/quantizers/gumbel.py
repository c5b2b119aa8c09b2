"""Gumbel-softmax quantization (Jang et al., 2016, arXiv:1611.01144)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtok import ops
from vqtok.quantizers.base import Quantized, zero_masked
from vqtok.quantizers.codebook import CodebookQuantizer
from vqtok.quantizers.gradients import straight_through
from vqtok.quantizers.usage import Usage


class GumbelQuantizer(CodebookQuantizer):
    """A linear layer scores the codes; training draws one from the softmax, evaluation takes
    the best.

    The forward value is always one embedding (straight-through Gumbel); its gradient is that of
    the soft sample. Training holds an N x K matrix, which is the method; evaluation does not.

    Args:
        codebook_size: number of embeddings K.
        dim: dimension D of latents and embeddings.
        temperature: of the soft sample, at the start; anneal it with
            ``quantizer.temperature.fill_(value)``, it is part of the state.

    Losses: in training ``kl``, the mean divergence of a position's distribution from the uniform
    one, in nats (published weight 5e-4).
    """

    def __init__(self, codebook_size: int, dim: int, *, temperature: float = 1.0) -> None:
        super().__init__(codebook_size, dim)
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        self.config: dict[str, Any] = {
            "type": "gumbel",
            "codebook_size": codebook_size,
            "dim": dim,
            "temperature": temperature,
        }
        self.usage = Usage(codebook_size)
        self.scores = nn.Linear(dim, codebook_size)
        self.embeddings = nn.Parameter(torch.randn(codebook_size, dim))
        self.register_buffer("temperature", torch.tensor(float(temperature)))
        self.temperature: Tensor

    @property
    def learns_from_output(self) -> bool:
        return True

    def table(self) -> Tensor:
        return self.embeddings

    def _quantize_rows(self, rows: Tensor, valid: Tensor | None) -> Quantized:
        losses: dict[str, Tensor] = {}
        if self.training:
            logits = self.scores(rows)
            noise = -(-torch.rand_like(logits).clamp_min(1e-20).log()).log()
            noisy = logits + zero_masked(noise, valid)
            codes = noisy.detach().argmax(dim=-1)
            chosen = F.embedding(codes, self.embeddings)
            expected = F.softmax(noisy / self.temperature, dim=-1) @ self.embeddings.detach()
            quantized = chosen + (expected - expected.detach())
            losses["kl"] = self._divergence(logits, valid)
        else:
            bias = self.scores.bias.detach()
            codes = ops.largest_product(rows.detach(), self.scores.weight.detach(), bias)
            chosen = F.embedding(codes, self.embeddings)
            quantized = straight_through(rows, chosen)
        return Quantized(quantized, codes, losses, self.usage(codes, valid))

    def _divergence(self, logits: Tensor, valid: Tensor | None) -> Tensor:
        log_share = F.log_softmax(logits, dim=-1)
        divergence = (log_share.exp() * (log_share + math.log(self.codebook_size))).sum(-1)
        total = zero_masked(divergence[:, None], valid).sum().clamp_min(0)
        count = len(logits) if valid is None else valid.sum()
        mean: Tensor = total / torch.as_tensor(count, device=logits.device).clamp_min(1)
        return mean
