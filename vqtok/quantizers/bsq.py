"""Binary spherical quantization (Zhao et al., 2024, arXiv:2406.07548)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vqtok.quantizers.lfq import LFQ


class BSQ(LFQ):
    """LFQ on the unit sphere: latents are normalised, and bits stand for +-1/sqrt(D).

    The quantization error is bounded, so that the commitment matters little. Args, losses and
    metrics as :class:`LFQ`, except that the temperature defaults to 1.
    """

    kind = "bsq"

    def __init__(self, bits: int, *, temperature: float = 1.0, group_bits: int = 8) -> None:
        super().__init__(bits, temperature=temperature, group_bits=group_bits)
        self.size = bits**-0.5

    def _place(self, rows: Tensor) -> Tensor:
        return F.normalize(rows, dim=-1)
