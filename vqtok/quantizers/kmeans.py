"""k-means on a batch of latents: the usual start of a codebook."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtok import ops
from vqtok.quantizers import distributed


@torch.no_grad()
def kmeans(
    latents: Tensor, codebook_size: int, *, valid: Tensor | None = None, iterations: int = 10
) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm from random rows, over all ranks; empty clusters restart at random rows.

    Args:
        latents: float32 [N, D]. With fewer rows than clusters (over all ranks), the centers are
            the rows, repeated with a little noise so that no two are equal.
        codebook_size: number of clusters K.
        valid: bool [N], the rows that count; the others may hold NaN. None for all.
        iterations: Lloyd steps.

    Returns:
        centers float32 [K, D] and counts int64 [K], the rows nearest to each; the same on every
        rank. Without any row the centers mean nothing and the counts are 0.
    """
    centers, total = distributed.draw_rows(latents, valid, codebook_size)
    scarce = total < codebook_size
    spread = centers.std(dim=0, unbiased=False).mean().clamp_min(1e-3)
    noise = distributed.from_first_rank(torch.randn_like(centers))
    centers = torch.where(scarce, centers + 0.01 * spread * noise, centers)
    for _ in range(iterations):
        counts, sums = code_totals(latents, _nearest(latents, centers), codebook_size, valid)
        fresh, _ = distributed.draw_rows(latents, valid, codebook_size)
        means = sums / counts.clamp_min(1)[:, None]
        moved = torch.where(counts[:, None] > 0, means, fresh)
        centers = torch.where(scarce, centers, moved)
    counts, _ = code_totals(latents, _nearest(latents, centers), codebook_size, valid)
    return centers, counts


def code_totals(
    latents: Tensor, codes: Tensor, codebook_size: int, valid: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Over all ranks: how many valid rows chose each code, int64 [K], and their sums [K, D].

    Rows that are not valid may hold anything, NaN too; they change neither.
    """
    if valid is not None:  # the others are counted behind the last code, and left out
        codes = torch.where(valid, codes, codebook_size)
    size = codebook_size + (valid is not None)
    counts, sums = ops.ema_update(latents, codes, size, check=False)  # they come from a lookup
    counts, sums = counts[:codebook_size], sums[:codebook_size]
    return distributed.sum_over_ranks(counts), distributed.sum_over_ranks(sums)


def _nearest(latents: Tensor, centers: Tensor) -> Tensor:
    return ops.nearest(latents, centers, check=False)
