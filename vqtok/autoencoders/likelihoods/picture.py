"""The distance of pictures that tokenizers of few codes are trained with."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from vqtok.autoencoders.likelihoods.base import Likelihood


class PictureDistance(Likelihood):
    """Squared error of pixels, and absolute error of the steps between neighbours.

    Where a code says little, the squared error leaves small steps between the blocks of
    neighbouring codes nearly for free. The absolute error does not: a step that is as likely up as
    down is best left out. Steps are those across and down, of the pictures as they are and at half
    and a quarter of their size.

    Args:
        edges: the weight of the steps.
    """

    per_value: ClassVar[bool] = True

    def __init__(self, *, edges: float = 0.1) -> None:
        super().__init__()
        self.config = {"type": "picture", "edges": edges}
        self.edges = edges

    def forward(self, output: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss, a scalar, of pictures [B, C, H, W]; a mask is of no use here."""
        error = output - target
        loss = F.mse_loss(output, target)
        for _ in range(3):
            steps = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
            loss = loss + self.edges / 6 * steps
            error = F.avg_pool2d(error, 2)
        return loss

    def cost(self, output: Tensor, target: Tensor) -> Tensor:
        """Squared error of each value: a step belongs to no single one."""
        return (output - target).square()
