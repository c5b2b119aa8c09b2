"""The k largest latents of each position (Makhzani & Frey 2013, arXiv:1312.5663; Gao et al. 2024,
arXiv:2406.04093)."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtok.autoencoders.bottlenecks.base import Squeezed
from vqtok.autoencoders.bottlenecks.sparse import SparseBottleneck


class TopK(SparseBottleneck):
    """Keeps the ``k`` largest positive latents of each position, sets the others to 0.

    Args:
        dim: number of latents D.
        k: how many stay, at most D.
        dead_after: see :class:`SparseBottleneck`.
    """

    def __init__(self, dim: int, k: int, *, dead_after: int = 100) -> None:
        super().__init__(dim, dead_after)
        if not 1 <= k <= dim:
            raise ValueError(f"k must be in 1..{dim}, not {k}")
        self.config = {"type": "top_k", "dim": dim, "k": k, "dead_after": dead_after}
        self.k = k

    def forward(
        self, latents: Tensor, mask: Tensor | None = None, *, step: int | None = None
    ) -> Squeezed:
        return self._measured(keep_largest(latents, self.k), mask)


def keep_largest(latents: Tensor, k: int) -> Tensor:
    """[..., D] with everything but the k largest positive entries of each row at 0."""
    largest, places = latents.relu().topk(k, dim=-1)
    return torch.zeros_like(latents).scatter(-1, places, largest)
