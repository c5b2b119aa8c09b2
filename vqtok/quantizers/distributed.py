"""Agreement between ranks, decided at each call: a quantizer may be older than the group.

Every rank calls the same functions in the same order, whatever it holds, so that an empty rank
hangs nobody. Without an initialised process group the functions do the same for one rank.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def _world_size() -> int:
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return 1


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of every rank's tensor, the same on all of them.

    Differentiable: the gradient is the sum of the ranks' gradients, so that the average over
    ranks that DistributedDataParallel takes is the gradient of one process on the whole batch.
    """
    if _world_size() == 1:
        return values
    summed: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return summed


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def from_first_rank(values: Tensor) -> Tensor:
    """Rank 0's tensor, on every rank."""
    if _world_size() == 1:
        return values
    return sum_over_ranks(values if dist.get_rank() == 0 else torch.zeros_like(values))


def draw_rows(rows: Tensor, valid: Tensor | None, count: int) -> tuple[Tensor, Tensor]:
    """Draw from all ranks' rows together: one at random from each of ``count`` equal stretches.

    Nothing is gathered but what is drawn, and nothing waits for the device.

    Args:
        rows: [N, D]; ranks may hold none.
        valid: bool [N], the rows that may be drawn; None for all.
        count: how many to draw; distinct rows if there are as many.

    Returns:
        rows [count, D] in random order, the same on every rank (zeros if there are none to draw
        from), and how many there are to draw from, int64 scalar.
    """
    size, device = len(rows), rows.device
    order = torch.arange(1, size + 1, device=device) if valid is None else valid.long().cumsum(0)
    here = order[-1] if size else torch.zeros((), dtype=torch.int64, device=device)
    before, total = _span(here)
    noise = from_first_rank(torch.rand(3, count, dtype=torch.float64, device=device))
    stretch = noise[0].argsort()
    start = stretch * total // count
    length = (stretch + 1) * total // count - start
    # Stretches differ in length by one; beginning anywhere makes every row equally likely.
    first = (noise[2, 0] * total).long()
    wanted = (start + (noise[1] * length).long() + first) % total.clamp_min(1) - before
    mine = (wanted >= 0) & (wanted < here)
    if size:
        # The row wanted is the first at which the number of valid rows so far exceeds it.
        positions = torch.searchsorted(order, wanted.clamp_min(0), right=True)
        drawn = torch.where(mine[:, None], rows[positions.clamp_max(size - 1)], 0.0)
    else:
        drawn = rows.new_zeros(count, rows.shape[1])
    return sum_over_ranks(drawn), total


def _span(here: Tensor) -> tuple[Tensor, Tensor]:
    """From each rank's count: the sum over lower ranks, and over all."""
    world_size = _world_size()
    if world_size == 1:
        return torch.zeros_like(here), here
    rank = dist.get_rank()
    counts = torch.zeros(world_size, dtype=torch.int64, device=here.device)
    counts[rank] = here
    counts = sum_over_ranks(counts)
    return counts[:rank].sum(), counts.sum()
