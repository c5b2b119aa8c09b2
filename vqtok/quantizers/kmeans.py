"""k-means on a batch of latents: the usual start of a codebook."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtok import ops


@torch.no_grad()
def kmeans(latents: Tensor, codebook_size: int, *, iterations: int = 10) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm from random rows; empty clusters restart at random rows.

    Args:
        latents: float32 [N, D], N >= 1. With fewer rows than clusters, the centers are the
            rows, repeated with a little noise so that no two are equal.
        codebook_size: number of clusters K.
        iterations: Lloyd steps.

    Returns:
        centers float32 [K, D] and counts float32 [K], the rows nearest to each.
    """
    rows = len(latents)
    centers = _random_rows(latents, codebook_size)
    if rows < codebook_size:
        spread = latents.std(dim=0, unbiased=False).mean().clamp_min(1e-3)
        centers = centers + 0.01 * spread * torch.randn_like(centers)
        iterations = 0
    for _ in range(iterations):
        counts, sums = ops.ema_update(latents, ops.nearest(latents, centers), codebook_size)
        means = sums / counts.clamp_min(1)[:, None]
        centers = torch.where(counts[:, None] > 0, means, _random_rows(latents, codebook_size))
    counts = torch.bincount(ops.nearest(latents, centers), minlength=codebook_size)
    return centers, counts.float()


def _random_rows(latents: Tensor, count: int) -> Tensor:
    rows = len(latents)
    if rows >= count:
        chosen = torch.randperm(rows, device=latents.device)[:count]
    else:
        chosen = torch.arange(count, device=latents.device) % rows
    return latents[chosen]
