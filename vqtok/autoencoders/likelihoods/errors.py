"""Plain errors, mean over all values: what image tokenizers are trained with."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from vqtok.autoencoders.likelihoods.base import Likelihood


class MeanSquare(Likelihood):
    """Mean squared error."""

    per_value: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.config = {"type": "mse"}

    def forward(self, output: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            return F.mse_loss(output, target)  # the same rounding as ever: runs stay bit-exact
        return super().forward(output, target, mask)

    def cost(self, output: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(output, target, reduction="none")


class Charbonnier(Likelihood):
    """Mean of sqrt(error^2 + 1e-6): nearly absolute error, smooth at zero."""

    per_value: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.config = {"type": "charbonnier"}

    def cost(self, output: Tensor, target: Tensor) -> Tensor:
        return ((output - target).square() + 1e-6).sqrt()
