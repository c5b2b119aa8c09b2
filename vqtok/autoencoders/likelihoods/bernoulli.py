"""Values in [0, 1] as probabilities: cross-entropy in nats."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vqtok.autoencoders.likelihoods.base import Likelihood, check_unit_interval


class Bernoulli(Likelihood):
    """The decoder gives logits. Exact for values that are 0 or 1; between them it is the expected
    cost of a value that was drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.config = {"type": "bernoulli"}

    def cost(self, output: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(output, target, reduction="none")

    def point(self, output: Tensor) -> Tensor:
        return output.sigmoid()

    def check(self, target: Tensor) -> None:
        check_unit_interval(target)
