"""Lookup-free quantization (Yu et al., 2023, arXiv:2310.05737)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vqtok.quantizers.base import (
    Quantized,
    Quantizer,
    check_codes,
    masked_mean_square,
    refuse_not_finite,
)
from vqtok.quantizers.gradients import straight_through
from vqtok.quantizers.soft_codes import bit_code_losses
from vqtok.quantizers.usage import Usage

MAX_BITS = 63


class LFQ(Quantizer):
    """Each dimension becomes its sign: one bit, +1 or -1 (0 counts as negative).

    Bit d of the code is the sign of dimension d, in int64.

    Args:
        bits: number of dimensions D, 1..63.
        temperature: of the soft bits in the entropy terms; the odds of a bit follow from its
            squared distances to +1 and -1, divided by it.
        group_bits: bits that the diversity term takes together, see
            :func:`vqtok.quantizers.soft_codes.bit_code_losses`.

    Losses: ``commitment``; in training ``entropy`` and ``diversity``, over all ranks (the paper's
    entropy penalty is their sum, less the constant log K).
    """

    kind = "lfq"

    def __init__(self, bits: int, *, temperature: float = 0.01, group_bits: int = 8) -> None:
        super().__init__()
        if not 1 <= bits <= MAX_BITS:
            raise ValueError(
                f"bits must be in 1..{MAX_BITS} to fit an int64 code, not {bits}; "
                "split the dimensions with a GroupedQuantizer"
            )
        if temperature <= 0 or not 1 <= group_bits <= 16:
            raise ValueError(
                f"temperature must be positive and group_bits in 1..16, "
                f"not {temperature} and {group_bits}"
            )
        self.config: dict[str, Any] = {
            "type": self.kind,
            "bits": bits,
            "temperature": temperature,
            "group_bits": group_bits,
        }
        self.dim = bits
        self.usage = Usage(*[2] * bits)
        self.temperature = temperature
        self.group_bits = group_bits
        self.size = 1.0
        self.register_buffer("shifts", torch.arange(bits), persistent=False)
        self.shifts: Tensor

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return (2**self.dim,)

    def _quantize_rows(self, rows: Tensor, valid: Tensor | None) -> Quantized:
        if not self.training:
            refuse_not_finite(rows)
        points = self._place(rows)
        positive = points.detach() > 0
        quantized = self._signs(positive)
        codes = (positive.long() << self.shifts).sum(-1)
        losses = {"commitment": masked_mean_square(points, quantized, valid)}
        if self.training:
            logits = 4 * self.size * points / self.temperature
            losses.update(bit_code_losses(logits, self.group_bits, valid))
        passed = straight_through(points, quantized)
        return Quantized(passed, codes, losses, self.usage(codes, valid))

    def embed(self, codes: Tensor) -> Tensor:
        check_codes(codes, self.codebook_sizes)
        return self._signs((codes.long() >> self.shifts) & 1 == 1)

    def _place(self, rows: Tensor) -> Tensor:
        """Where latents lie among the codes' points."""
        return rows

    def _signs(self, positive: Tensor) -> Tensor:
        return torch.where(positive, self.size, -self.size)
