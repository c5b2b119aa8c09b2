"""Finite scalar quantization with evenly spread latents (iFSQ, arXiv:2601.17124)."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtok.quantizers.fsq import FSQ


class IFSQ(FSQ):
    """FSQ with the bound ``2 * sigmoid(1.6 * z) - 1``, close to the distribution function of a
    normal variable, so that normal latents are spread almost evenly: the inner levels are used
    alike, the two outermost, whose cells are halves, half as much.

    The bounded value times (L - 1) / 2 is rounded. The paper takes odd L; for even L the levels
    lie at -(L - 1) / 2, ..., -1/2, 1/2, ..., so that all of [-1, 1] is covered evenly. Exact
    halves round to the even one of the levels as :class:`FSQ` counts them, from -(L // 2).

    Args, losses and metrics as :class:`FSQ`.
    """

    kind = "ifsq"

    def _bound(self, rows: Tensor) -> Tensor:
        return self._unplace(2 * torch.sigmoid(1.6 * rows) - 1)

    def _place(self, position: Tensor) -> Tensor:
        half = (self.count - 1) / 2
        return (position + (self.middle - half)) / half

    def _unplace(self, quantized: Tensor) -> Tensor:
        half = (self.count - 1) / 2
        return quantized * half - (self.middle - half)
