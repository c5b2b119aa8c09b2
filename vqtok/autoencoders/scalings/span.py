"""Lowest value 0, highest 1."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vqtok.autoencoders.scalings.base import Scaling


class Span(Scaling):
    """Each entry of ``shape`` to [0, 1] over the training data, which a Bernoulli likelihood needs.

    Other data may lie outside and are clipped.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        self.config = {"type": "span", "shape": list(shape)}

    def forward(self, data: Tensor) -> Tensor:
        return super().forward(data).clamp(0, 1)

    def _measure(self, rows: Tensor, axes: list[int]) -> tuple[Tensor, Tensor]:
        return rows.amin(axes), rows.amax(axes) - rows.amin(axes)
