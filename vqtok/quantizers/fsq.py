"""Finite scalar quantization (Mentzer et al., 2023, arXiv:2309.15505)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vqtok.quantizers.base import Quantized, Quantizer, check_codes, refuse_not_finite
from vqtok.quantizers.gradients import straight_through
from vqtok.quantizers.usage import Usage

# With more, the published bound would leave the outermost levels out of reach.
_MAX_LEVELS = 1000


class FSQ(Quantizer):
    """Each dimension is bounded and rounded to one of a few levels; there is nothing to learn.

    Dimension d becomes ``round(tanh(z + shift) * half - offset)``, as published: ``half`` is
    (L - 1) / 2 less a thousandth, ``offset`` is 0 for odd L and 1/2 for even L, and
    ``shift = tan(offset / half)`` puts zero near the middle. Exact halves round to the even
    integer. The result, divided by L // 2, lies in [-1, 1].

    The code is the levels' mixed-radix number, first dimension least significant, in int64.

    Args:
        levels: the number of levels L of each dimension, each in 2..1000; D is their count.

    Losses: none.

    Raises:
        ValueError: more than 2^63 codes.
    """

    kind = "fsq"

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        levels = [int(count) for count in levels]
        if not levels or not all(2 <= count <= _MAX_LEVELS for count in levels):
            raise ValueError(f"levels must be one or more numbers in 2..{_MAX_LEVELS}: {levels}")
        self.codebook_size = math.prod(levels)
        if self.codebook_size > 2**63:
            raise ValueError(
                f"levels {levels} make more than 2^63 codes, which int64 cannot number; "
                "split the dimensions with a GroupedQuantizer"
            )
        self.config: dict[str, Any] = {"type": self.kind, "levels": levels}
        self.dim = len(levels)
        self.usage = Usage(*levels)
        count = torch.tensor(levels)
        basis = torch.tensor([math.prod(levels[:index]) for index in range(self.dim)])
        # Not in the state dict: the config has them.
        self.register_buffer("count", count, persistent=False)
        self.register_buffer("basis", basis, persistent=False)
        self.register_buffer("middle", count // 2, persistent=False)
        # The code of the middle levels: they count from there, codes from the lowest.
        self.first = sum(L // 2 * math.prod(levels[:d]) for d, L in enumerate(levels))
        self.count: Tensor
        self.basis: Tensor
        self.middle: Tensor

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return (self.codebook_size,)

    def _quantize_rows(self, rows: Tensor, valid: Tensor | None) -> Quantized:
        if not self.training:
            refuse_not_finite(rows)
        position = self._bound(rows)
        levels = self._round(position.detach())
        quantized = self._place(straight_through(position, levels))
        codes = self._number(levels)
        return Quantized(quantized, codes, {}, self.usage(codes, valid))

    def embed(self, codes: Tensor) -> Tensor:
        check_codes(codes, self.codebook_sizes)
        digits = codes.long() // self.basis % self.count
        return self._place((digits - self.middle).float())

    def codes_of(self, quantized: Tensor) -> Tensor:
        low, high = -self.middle, self.count - 1 - self.middle
        levels = self._round(self._unplace(quantized.float())).clamp(low, high)
        return self._number(levels)[..., None]

    def _number(self, levels: Tensor) -> Tensor:
        """Codes [...] of levels [..., D]."""
        return (levels.long() * self.basis).sum(-1) + self.first

    def _bound(self, rows: Tensor) -> Tensor:
        """Latents [N, D] to positions between the lowest and the highest level."""
        half = (self.count - 1) * (1 - 1e-3) / 2
        offset = 0.5 * (self.count % 2 == 0)
        return torch.tanh(rows + torch.tan(offset / half)) * half - offset

    def _round(self, position: Tensor) -> Tensor:
        """Levels, whole numbers counted from the middle one; NaN becomes the middle."""
        return position.round().nan_to_num(nan=0.0)

    def _place(self, position: Tensor) -> Tensor:
        """What a position stands for in the quantized latents."""
        return position / self.middle

    def _unplace(self, quantized: Tensor) -> Tensor:
        return quantized * self.middle
