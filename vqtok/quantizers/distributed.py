"""Agreement between ranks, decided at each call: a quantizer may be older than the group.

Without an initialised process group every function returns its argument.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def _world_size() -> int:
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return 1


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of every rank's tensor, the same on all of them."""
    if _world_size() == 1:
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values


def from_first_rank(values: Tensor) -> Tensor:
    """Rank 0's tensor, on every rank."""
    if _world_size() == 1:
        return values
    values = values.contiguous().clone()
    dist.broadcast(values, 0)
    return values


def gather_rows(rows: Tensor) -> Tensor:
    """Every rank's rows [N_r, D] in rank order, [sum N_r, D]; ranks may hold none."""
    world_size = _world_size()
    if world_size == 1:
        return rows
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.zeros_like(count) for _ in range(world_size)]
    dist.all_gather(counts, count)
    longest = max(int(c) for c in counts)
    padded = rows.new_zeros(longest, rows.shape[1])
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in range(world_size)]
    dist.all_gather(gathered, padded)
    return torch.cat([part[: int(c)] for part, c in zip(gathered, counts, strict=True)])
