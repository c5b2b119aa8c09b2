"""Values that are missing."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtok.autoencoders.corruptions.base import Corruption, check_fraction


class Masking(Corruption):
    """Sets values to a constant, each with the same probability. Symbols (integers) become
    ``value`` too.

    Args:
        fraction: the probability.
        value: the constant; 0 is the mean of standardized data.
    """

    def __init__(self, fraction: float, value: float = 0.0) -> None:
        super().__init__()
        check_fraction("fraction", fraction)
        self.config = {"type": "masking", "fraction": fraction, "value": value}
        self.fraction, self.value = fraction, value

    def forward(self, inputs: Tensor) -> Tensor:
        hit = torch.rand(inputs.shape, device=inputs.device) < self.fraction
        return torch.where(hit, torch.full_like(inputs, self.value), inputs)
