"""How far a reconstruction is from its target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vqtok.autoencoders.bottlenecks import sum_per_sample


class Likelihood(nn.Module, ABC):
    """The decoder's output as a distribution of the data; what training minimises is its negative
    logarithm in nats per sample: summed over a sample's values, mean over the batch.

    Attributes:
        config: JSON-able; rebuilds the likelihood.
        per_value: True for plain errors, which are no likelihoods: their loss is the mean over
            all values, in no unit.
    """

    config: dict[str, Any]
    per_value: ClassVar[bool] = False

    @abstractmethod
    def cost(self, output: Tensor, target: Tensor) -> Tensor:
        """Of each value, in nats.

        Args:
            output: float32 [B, ...], the decoder's.
            target: float32 [B, ...] (or what the likelihood is of).

        Returns:
            float32, the shape of the target.
        """

    def forward(self, output: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss, a scalar; ``mask``: bool [B, ...], leading dimensions, True where data is."""
        cost = self.cost(output, target)
        if not self.per_value:
            return sum_per_sample(cost, mask).mean()
        if mask is None:
            return cost.mean()
        values = mask.sum() * (cost.numel() // max(1, mask.numel()))
        return sum_per_sample(cost, mask).sum() / values.clamp_min(1)

    def point(self, output: Tensor) -> Tensor:
        """The output as data: the mean of the distribution."""
        return output

    def check(self, target: Tensor) -> None:
        """ValueError if the data are not what the likelihood is of."""


def check_unit_interval(target: Tensor) -> None:
    """ValueError unless all values are in [0, 1]."""
    low, high = (float(bound) for bound in torch.aminmax(target))
    if low < 0 or high > 1:
        raise ValueError(
            f"a Bernoulli likelihood needs values in [0, 1], not {low:.4g}..{high:.4g}; "
            f"use the scaling 'span'"
        )
