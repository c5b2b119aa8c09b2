"""What sparse bottlenecks share: counting how long each latent has been silent."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtok.autoencoders.bottlenecks.base import Bottleneck, Squeezed
from vqtok.quantizers.distributed import sum_over_ranks


class SparseBottleneck(Bottleneck):
    """Counts steps since each latent was last active; those silent for longer are ``dead``.

    Steps, not samples: a threshold in samples never comes on small data.

    Args:
        dim: number of latents D.
        dead_after: training steps without activity (on any rank) after which one is dead.

    Metrics: ``l0``, active latents per position; ``dead``, the fraction of dead latents.
    """

    idle: Tensor

    def __init__(self, dim: int, dead_after: int) -> None:
        super().__init__()
        if dim < 1 or dead_after < 1:
            raise ValueError(f"dim and dead_after must be positive, not {dim}, {dead_after}")
        self.dim = self.out_dim = dim
        self.dead_after = dead_after
        self.register_buffer("idle", torch.zeros(dim, dtype=torch.int64))

    @property
    def dead(self) -> Tensor:
        """bool [D]."""
        return self.idle >= self.dead_after

    def _measured(
        self, values: Tensor, mask: Tensor | None, losses: dict[str, Tensor] | None = None
    ) -> Squeezed:
        active = values.detach() != 0
        if mask is not None:
            active = active & mask[..., None]
        rows = active.reshape(-1, self.dim)
        if self.training:
            seen = sum_over_ranks(rows.any(0).long()) > 0
            self.idle.copy_(torch.where(seen, 0, self.idle + 1))
        positions = len(rows) if mask is None else mask.sum().clamp_min(1)
        metrics = {"l0": rows.sum() / positions, "dead": self.dead.float().mean()}
        return Squeezed(values, losses=losses or {}, metrics=metrics)
