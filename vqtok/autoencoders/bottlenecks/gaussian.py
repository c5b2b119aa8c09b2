"""A Gaussian posterior: the variational autoencoder (Kingma & Welling 2013, arXiv:1312.6114)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vqtok.autoencoders.bottlenecks.base import Bottleneck, Squeezed, sum_per_sample
from vqtok.autoencoders.precision import at_least_float32
from vqtok.autoencoders.schedule import Schedule, at_step, check_schedule

# The posterior's log-variance: wide enough to be no limit, narrow enough for exp in float32.
_LOG_VARIANCE = (-20.0, 10.0)


class GaussianBottleneck(Bottleneck):
    """Latents become mean and log-variance of q(z|x); the decoder gets a draw, in evaluation the
    mean. The prior is a standard normal.

    Args:
        dim: of a latent (what the encoder gives).
        out_dim: dimensions of z at each position.
        free_bits: nats per dimension of z that cost nothing (Kingma et al. 2016,
            arXiv:1606.04934): a dimension's mean KL below it counts as it.
        capacity: nats per sample that the KL is held at, perhaps a schedule (Burgess et al. 2018,
            arXiv:1804.03599): the loss is ``|KL - capacity|``. None for the plain KL.

    Losses: ``kl``, in nats per sample: summed over dimensions, mean over the batch. Its weight
    (``loss_weights={"kl": beta}``, perhaps a schedule) is the beta of a beta-VAE.
    Metrics: ``kl``, before free bits and capacity; ``active_units``, dimensions whose posterior
    mean varies by more than 0.01 over the batch (Burda et al. 2015, arXiv:1509.00519).
    """

    def __init__(
        self,
        dim: int,
        out_dim: int,
        *,
        free_bits: float = 0.0,
        capacity: Schedule | None = None,
    ) -> None:
        super().__init__()
        if dim < 1 or out_dim < 1 or free_bits < 0:
            raise ValueError(
                f"dim and out_dim must be positive and free_bits not negative, "
                f"not {dim}, {out_dim}, {free_bits}"
            )
        if free_bits and capacity is not None:
            raise ValueError("free_bits and capacity exclude each other")
        if capacity is not None:
            check_schedule("capacity", capacity)
        self.config: dict[str, Any] = {"type": "gaussian", "dim": dim, "out_dim": out_dim}
        self.config |= {"free_bits": free_bits, "capacity": capacity}
        self.dim, self.out_dim = dim, out_dim
        self.free_bits, self.capacity = free_bits, capacity
        self.mean = nn.Linear(dim, out_dim)
        self.log_variance = nn.Linear(dim, out_dim)

    def posterior(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of z, each [..., out_dim], float32 at least."""
        log_variance = at_least_float32(self.log_variance(latents)).clamp(*_LOG_VARIANCE)
        return at_least_float32(self.mean(latents)), log_variance

    def forward(
        self, latents: Tensor, mask: Tensor | None = None, *, step: int | None = None
    ) -> Squeezed:
        mean, log_variance = self.posterior(latents)
        values = mean
        if self.training:
            values = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
        if mask is not None:
            kl = kl.masked_fill(~mask[..., None], 0.0)
        per_sample = sum_per_sample(kl)
        rows = mean.detach() if mask is None else mean.detach()[mask]
        variance = rows.flatten(0, -2).var(0, correction=0) if rows.numel() else mean.new_zeros(1)
        metrics = {
            "kl": per_sample.detach().mean(),
            "active_units": (variance > 0.01).float().sum(),
        }
        return Squeezed(
            values.to(latents.dtype),
            losses={"kl": self._loss(kl, per_sample, step)},
            metrics=metrics,
            kl=kl,
        )

    def _loss(self, kl: Tensor, per_sample: Tensor, step: int | None) -> Tensor:
        if self.capacity is not None:
            return (per_sample.mean() - at_step(self.capacity, step)).abs()
        if self.free_bits:
            return kl.mean(0).clamp_min(self.free_bits).sum()
        return per_sample.mean()
