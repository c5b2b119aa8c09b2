"""Finite scalar quantization as vector-quantize-pytorch rounds it."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtok.quantizers.fsq import FSQ


class WideFSQ(FSQ):
    """FSQ whose outermost levels are a thousandth within reach instead of out of it.

    ``round(tanh(z + atanh(offset / half)) * half - offset)`` with ``half`` (L - 1) / 2 and a
    thousandth, and ``offset`` as for :class:`FSQ`: what vector-quantize-pytorch's ``FSQ`` does.

    Args:
        levels: as for :class:`FSQ`.
    """

    kind = "wide_fsq"

    def _bound(self, rows: Tensor) -> Tensor:
        half = (self.count - 1) * (1 + 1e-3) / 2
        offset = 0.5 * (self.count % 2 == 0)
        return torch.tanh(rows + torch.atanh(offset / half)) * half - offset


class SymmetricFSQ(FSQ):
    """FSQ over [-1, 1], ends included, with equal steps (Parker et al., 2024, arXiv:2411.19842).

    ``floor((L - 1) * (tanh(z) + 1) / 2 + 1 / 2)`` is the level: what vector-quantize-pytorch's
    ``FSQ`` does with ``preserve_symmetry``.

    Args:
        levels: as for :class:`FSQ`.
    """

    kind = "symmetric_fsq"

    def _bound(self, rows: Tensor) -> Tensor:
        return (self.count - 1) * (torch.tanh(rows) + 1) / 2 - self.middle

    def _round(self, position: Tensor) -> Tensor:
        return (position + 0.5).floor().nan_to_num(nan=0.0)

    def _place(self, position: Tensor) -> Tensor:
        return (position + self.middle) * (2 / (self.count - 1)) - 1

    def _unplace(self, quantized: Tensor) -> Tensor:
        return (quantized + 1) * (self.count - 1) / 2 - self.middle
