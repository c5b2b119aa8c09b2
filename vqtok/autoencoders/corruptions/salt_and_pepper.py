"""Values that jump to an extreme."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtok.autoencoders.corruptions.base import Corruption, check_fraction


class SaltAndPepper(Corruption):
    """Sets values to the lowest or the highest value, each as likely.

    Args:
        fraction: the probability that a value is hit.
        low: the lowest value; None for that of the sample.
        high: the highest; None for that of the sample.
    """

    def __init__(
        self, fraction: float, low: float | None = None, high: float | None = None
    ) -> None:
        super().__init__()
        check_fraction("fraction", fraction)
        self.config = {"type": "salt_and_pepper", "fraction": fraction, "low": low, "high": high}
        self.fraction, self.low, self.high = fraction, low, high

    def forward(self, inputs: Tensor) -> Tensor:
        shape = (len(inputs), *(1 for _ in inputs.shape[1:]))
        flat = inputs.flatten(1)
        low = flat.amin(1).view(shape) if self.low is None else inputs.new_tensor(self.low)
        high = flat.amax(1).view(shape) if self.high is None else inputs.new_tensor(self.high)
        draw = torch.rand(inputs.shape, device=inputs.device)
        extreme = torch.where(draw < self.fraction / 2, low, high)
        return torch.where(draw < self.fraction, extreme, inputs)
