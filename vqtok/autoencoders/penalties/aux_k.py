"""Reviving dead latents (Gao et al. 2024, arXiv:2406.04093, section 2.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtok.autoencoders.bottlenecks import SparseBottleneck
from vqtok.autoencoders.bottlenecks.top_k import keep_largest
from vqtok.autoencoders.penalties.base import Context, Penalty


class AuxK(Penalty):
    """The share of what the living latents missed that is still left when the strongest dead ones
    try to explain it, times the data's variance; 0 while none is dead.

    The variance is half of the squared distance to the batch's mean, summed over features: so the
    term is in nats per sample like a Gaussian's reconstruction, and the weight of Gao et al., 1/32,
    means the same for data of any scale. Only with a sparse bottleneck, which counts in steps who
    is dead.

    Args:
        k: dead latents that try, for each position.
    """

    def __init__(self, k: int = 32) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        self.config = {"type": "aux_k", "k": k}
        self.k = k

    def forward(self, context: Context) -> Tensor:
        bottleneck = context.bottleneck
        if not isinstance(bottleneck, SparseBottleneck):
            raise ValueError(
                f"aux_k needs a bottleneck that counts dead latents, not "
                f"{type(bottleneck).__name__}"
            )
        dead = bottleneck.dead
        missed = (context.target - context.output).detach().float()
        trying = torch.where(dead, context.latents, 0.0)
        values = keep_largest(trying, min(self.k, bottleneck.dim))
        # Without the decoder's constant part, in value and gradient: that belongs to the living.
        explained = context.decode(values) - context.decode(torch.zeros_like(values))
        error = (missed - explained.float()).square().mean()
        variance = (missed - missed.mean(0)).square().mean().clamp_min(1e-12)
        target = context.target.float()
        spread = 0.5 * (target - target.mean(0)).square().flatten(1).sum(1).mean()
        return torch.where(dead.any(), spread * error / variance, 0.0)
