"""What stands between encoder and decoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Squeezed:
    """What a bottleneck makes of latents.

    Attributes:
        values: [..., out_dim], what the decoder gets.
        codes: int64 [..., Q] of a quantizer, else None.
        losses: unweighted scalar terms.
        metrics: detached scalars or vectors.
        kl: [B, ..., D'] in nats, what each dimension of a stochastic bottleneck costs; else None.
    """

    values: Tensor
    codes: Tensor | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, Tensor] = field(default_factory=dict)
    kl: Tensor | None = None


class Bottleneck(nn.Module, ABC):
    """Maps latents [..., dim] to values [..., out_dim].

    In evaluation the values are a function of the sample's latents alone: no noise, nothing of
    the rest of the batch.

    Attributes:
        config: JSON-able; rebuilds the bottleneck.
        dim: of a latent.
        out_dim: of what the decoder gets.
    """

    config: dict[str, Any]
    dim: int
    out_dim: int

    @abstractmethod
    def forward(
        self, latents: Tensor, mask: Tensor | None = None, *, step: int | None = None
    ) -> Squeezed:
        """Squeeze.

        Args:
            latents: float [B, ..., dim].
            mask: bool [B, ...], True where a position counts.
            step: of training, for schedules; None for their end.
        """


def sum_per_sample(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """[B, ...] to [B]; positions where the mask (bool, leading dimensions of values) is False
    count 0."""
    if mask is not None:
        shape = (*mask.shape, *(1 for _ in range(values.ndim - mask.ndim)))
        values = values.masked_fill(~mask.view(shape), 0.0)
    return values.flatten(1).sum(1) if values.ndim > 1 else values
