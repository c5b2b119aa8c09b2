"""Sparse activity through its mean (Ng 2011, CS294A lecture notes)."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtok.autoencoders.penalties.base import Context, Penalty


class KLRho(Penalty):
    """KL divergence, in nats, of each unit's mean activity over the batch from a small target.

    Summed over units. Activities must be in [0, 1]: end the encoder with a sigmoid.

    Args:
        rho: the target, in (0, 1).
    """

    def __init__(self, rho: float = 0.05) -> None:
        super().__init__()
        if not 0 < rho < 1:
            raise ValueError(f"rho must be in (0, 1), not {rho}")
        self.config = {"type": "kl_rho", "rho": rho}
        self.rho = rho

    def forward(self, context: Context) -> Tensor:
        values = context.values.float()
        low, high = (float(bound) for bound in torch.aminmax(values.detach()))
        if low < 0 or high > 1:
            raise ValueError(
                f"kl_rho needs activities in [0, 1], not {low:.4g}..{high:.4g}; end the encoder "
                f"with a sigmoid (output='sigmoid')"
            )
        mean = values.flatten(0, -2).mean(0).clamp(1e-6, 1 - 1e-6)
        rho = torch.full_like(mean, self.rho)
        return (rho * (rho / mean).log() + (1 - rho) * ((1 - rho) / (1 - mean)).log()).sum()
