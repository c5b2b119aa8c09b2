"""Symbols: cross-entropy in nats."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vqtok.autoencoders.likelihoods.base import Likelihood


class Categorical(Likelihood):
    """The decoder gives logits [B, T, V] of integers [B, T], each in [0, V)."""

    def __init__(self) -> None:
        super().__init__()
        self.config = {"type": "categorical"}

    def cost(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(
            output.flatten(0, -2), target.long().flatten(), reduction="none"
        ).view(target.shape)

    def point(self, output: Tensor) -> Tensor:
        return output.argmax(-1)
