"""Mean 0, standard deviation 1."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vqtok.autoencoders.scalings.base import Scaling


class Standardize(Scaling):
    """Each entry of ``shape`` to mean 0 and standard deviation 1 over the training data."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        self.config = {"type": "standardize", "shape": list(shape)}

    def _measure(self, rows: Tensor, axes: list[int]) -> tuple[Tensor, Tensor]:
        return rows.mean(axes), rows.std(axes, correction=0)
