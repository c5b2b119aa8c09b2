"""BatchTopK (Bussmann et al. 2024, arXiv:2412.06410)."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtok.autoencoders.bottlenecks.base import Squeezed
from vqtok.autoencoders.bottlenecks.sparse import SparseBottleneck
from vqtok.quantizers.distributed import sum_over_ranks


class BatchTopK(SparseBottleneck):
    """Keeps the ``k`` x positions largest positive latents of a whole batch.

    Hard samples may use more than easy ones. In evaluation a running mean of the smallest latent
    kept is the threshold, so that a sample's values do not depend on its batch.

    Args:
        dim: number of latents D.
        k: how many stay on average, at most D.
        decay: of the running threshold.
        dead_after: see :class:`SparseBottleneck`.
    """

    threshold: Tensor

    def __init__(self, dim: int, k: int, *, decay: float = 0.99, dead_after: int = 100) -> None:
        super().__init__(dim, dead_after)
        if not 1 <= k <= dim:
            raise ValueError(f"k must be in 1..{dim}, not {k}")
        self.config = {
            "type": "batch_top_k",
            "dim": dim,
            "k": k,
            "decay": decay,
            "dead_after": dead_after,
        }
        self.k = k
        self.decay = decay
        self.register_buffer("threshold", torch.tensor(-1.0))  # negative: not known yet

    def forward(
        self, latents: Tensor, mask: Tensor | None = None, *, step: int | None = None
    ) -> Squeezed:
        positive = latents.relu()
        if mask is not None:
            positive = torch.where(mask[..., None], positive, 0.0)
        if not self.training:
            return self._measured(torch.where(positive > self.threshold, positive, 0.0), mask)
        positions = positive.numel() // self.dim if mask is None else int(mask.sum())
        flat = positive.reshape(-1)
        largest, places = flat.topk(self.k * positions)
        values = torch.zeros_like(flat).scatter(0, places, largest).view_as(latents)
        self._follow(largest[-1:].detach().float())
        return self._measured(values, mask)

    @torch.no_grad()
    def _follow(self, smallest: Tensor) -> None:
        """Move the threshold towards the mean over ranks of [1], or of [0] where nothing counts."""
        ranks = sum_over_ranks(smallest.new_tensor(float(len(smallest))))
        mean = sum_over_ranks(smallest.sum()) / ranks.clamp_min(1)
        known = self.threshold >= 0
        moved = torch.where(known, self.threshold.lerp(mean, 1 - self.decay), mean)
        self.threshold.copy_(torch.where(ranks > 0, moved, self.threshold))
