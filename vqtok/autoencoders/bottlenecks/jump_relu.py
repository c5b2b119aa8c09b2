"""JumpReLU (Rajamanoharan et al. 2024, arXiv:2407.14435)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from vqtok.autoencoders.bottlenecks.base import Squeezed, sum_per_sample
from vqtok.autoencoders.bottlenecks.sparse import SparseBottleneck


class JumpReLU(SparseBottleneck):
    """Latents above a learned threshold pass unchanged, the others become 0.

    The threshold learns through straight-through estimates: the density of latents around it,
    within ``bandwidth``.

    Args:
        dim: number of latents D, each with its threshold.
        threshold: where all of them start, positive.
        bandwidth: of the estimate.
        dead_after: see :class:`SparseBottleneck`.

    Losses: ``l0``, active latents per sample; its weight sets how sparse.
    """

    def __init__(
        self, dim: int, *, threshold: float = 0.1, bandwidth: float = 0.1, dead_after: int = 100
    ) -> None:
        super().__init__(dim, dead_after)
        if threshold <= 0 or bandwidth <= 0:
            raise ValueError(
                f"threshold and bandwidth must be positive, not {threshold}, {bandwidth}"
            )
        self.config = {
            "type": "jump_relu",
            "dim": dim,
            "threshold": threshold,
            "bandwidth": bandwidth,
            "dead_after": dead_after,
        }
        self.bandwidth = bandwidth
        self.log_threshold = nn.Parameter(torch.full((dim,), math.log(threshold)))

    def forward(
        self, latents: Tensor, mask: Tensor | None = None, *, step: int | None = None
    ) -> Squeezed:
        # As in the paper, values below 0 have no business here: ReLU first.
        positive, threshold = latents.float().relu(), self.log_threshold.exp()
        values: Tensor = _Jump.apply(positive, threshold, self.bandwidth)  # type: ignore[no-untyped-call]
        active: Tensor = _Step.apply(positive, threshold, self.bandwidth)  # type: ignore[no-untyped-call]
        losses = {"l0": sum_per_sample(active, mask).mean()}
        return self._measured(values.to(latents.dtype), mask, losses)


class _Jump(torch.autograd.Function):
    """z where z > threshold, else 0."""

    @staticmethod
    def forward(ctx: Any, latents: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(latents, threshold)
        ctx.bandwidth = bandwidth
        return torch.where(latents > threshold, latents, 0.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,), (latents, threshold) = gradients, ctx.saved_tensors
        near = _kernel(latents, threshold, ctx.bandwidth)
        for_threshold = -threshold * near * gradient
        return (
            torch.where(latents > threshold, gradient, 0.0),
            for_threshold.reshape(-1, len(threshold)).sum(0),
            None,
        )


class _Step(torch.autograd.Function):
    """1 where z > threshold, else 0; only the threshold gets a gradient."""

    @staticmethod
    def forward(ctx: Any, latents: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(latents, threshold)
        ctx.bandwidth = bandwidth
        return (latents > threshold).float()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        (gradient,), (latents, threshold) = gradients, ctx.saved_tensors
        for_threshold = -_kernel(latents, threshold, ctx.bandwidth) * gradient
        return None, for_threshold.reshape(-1, len(threshold)).sum(0), None


def _kernel(latents: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    return ((latents - threshold).abs() < bandwidth / 2).float() / bandwidth
