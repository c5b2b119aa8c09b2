"""Sparse activity through its absolute sum."""

from __future__ import annotations

from torch import Tensor

from vqtok.autoencoders.bottlenecks import sum_per_sample
from vqtok.autoencoders.penalties.base import Context, Penalty


class L1(Penalty):
    """The sum of absolute values after the bottleneck, per sample.

    A decoder that grows can cheat it; the ``dictionary`` decoder has atoms of norm 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.config = {"type": "l1"}

    def forward(self, context: Context) -> Tensor:
        return sum_per_sample(context.values.float().abs()).mean()
