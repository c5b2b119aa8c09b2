"""A second player in the training loop, such as the discriminator of a GAN."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn


class Adversary(nn.Module, ABC):
    """Learns to tell reconstructions from data while the model learns to fool it.

    In each step the model moves first, with the losses of :meth:`fool` among its own (weighed by
    the model's ``loss_weights`` of the same names); then the adversary, with :meth:`learn`, which
    sees the same reconstructions, detached. Its weights and its optimizer are in the checkpoint.

    Attributes:
        config: JSON-able; a run resumes only with the same.
    """

    config: dict[str, Any]

    @abstractmethod
    def fool(self, output: Tensor, target: Tensor, step: int) -> dict[str, Tensor]:
        """Scalar losses of the model, by name."""

    @abstractmethod
    def learn(self, output: Tensor, target: Tensor, step: int) -> Tensor:
        """The adversary's own loss, a scalar."""

    def optimizer(self) -> torch.optim.AdamW:
        """What moves it; the learning rate follows the model's schedule."""
        return torch.optim.AdamW(self.parameters(), betas=(0.5, 0.9), weight_decay=0.0)
