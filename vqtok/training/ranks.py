"""Several processes, one model: what ``torchrun`` starts.

Gradients are averaged after the backward pass rather than by DistributedDataParallel: any loss may
then differentiate twice, and every rank holds bit-identical gradients and weights.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn

_BUCKET = 1 << 23  # values in one exchange


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def this_rank() -> int:
    """Which of them this is; 0 writes the files."""
    return dist.get_rank() if world_size() > 1 else 0


def wait_for_all() -> None:
    """Go on when every rank is here."""
    if world_size() > 1:
        dist.barrier()


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Inside, the processes that ``torchrun`` started are one group; yields this one's device.

    ``cuda`` becomes ``cuda:LOCAL_RANK``. Without torchrun nothing happens.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    kind = torch.device(device).type
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the ranks; a missing one counts as zeros."""
    ranks = world_size()
    if ranks == 1:
        return
    bucket: list[torch.Tensor] = []
    for parameter in parameters:
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        bucket.append(parameter.grad)
        if sum(gradient.numel() for gradient in bucket) >= _BUCKET:
            _average(bucket, ranks)
            bucket = []
    if bucket:
        _average(bucket, ranks)


def _average(gradients: list[torch.Tensor], ranks: int) -> None:
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= ranks
    sizes = [gradient.numel() for gradient in gradients]
    for gradient, mean in zip(gradients, torch.split(flat, sizes), strict=True):
        gradient.copy_(mean.view_as(gradient))
