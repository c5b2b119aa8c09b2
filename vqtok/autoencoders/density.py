"""Where the latents of the training data lie: what to draw from when there is no prior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class LatentDensity(nn.Module):
    """A normal distribution of latents, along their principal axes.

    Args:
        shape: of a sample's latents.
        rank: how many axes; what is beyond them is left at the mean.
    """

    mean: Tensor
    axes: Tensor

    def __init__(self, shape: Sequence[int], rank: int) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"shape": list(shape), "rank": rank}
        self.shape = tuple(shape)
        size = math.prod(shape)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("axes", torch.zeros(rank, size))

    @classmethod
    def of(cls, latents: Tensor, rank: int = 64) -> LatentDensity:
        """The density of latents [N, ...], N at least 2."""
        flat = latents.double().flatten(1)
        mean = flat.mean(0)
        _, spread, axes = torch.linalg.svd(flat - mean, full_matrices=False)
        density = cls(tuple(latents.shape[1:]), min(rank, len(spread)))
        density.mean.copy_(mean)
        scale = spread[:rank, None] / math.sqrt(max(1, len(flat) - 1))
        density.axes.copy_(scale * axes[:rank])
        return density

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """float32 [count, *shape]; the generator lives on the CPU."""
        noise = torch.randn(count, len(self.axes), generator=generator).to(self.mean)
        return (self.mean + noise @ self.axes).view(count, *self.shape)
