"""How likely a VAE finds data: bounds from below, tighter with more draws."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vqtok.autoencoders.autoencoder import Autoencoder
from vqtok.autoencoders.bottlenecks import GaussianBottleneck
from vqtok.autoencoders.precision import at_least_float32

_ROWS = 4096


@torch.no_grad()
def importance_bound(model: Autoencoder, inputs: Tensor, draws: int, *, seed: int = 0) -> Tensor:
    """The importance-weighted bound on the log-likelihood (Burda et al. 2015, arXiv:1509.00519).

    With one draw this is the evidence lower bound; it rises with the draws towards log p(x), of the
    scaled data.

    Args:
        model: with a Gaussian bottleneck and a likelihood in nats.
        inputs: data [B, ...].
        draws: from the posterior of each sample.
        seed: of the draws: the same call gives the same result.

    Returns:
        float64 [B], nats.

    Raises:
        ValueError: the model is no VAE.
    """
    bottleneck = model.bottleneck
    if not isinstance(bottleneck, GaussianBottleneck) or model.likelihood.per_value:
        raise ValueError("a bound needs a Gaussian bottleneck and a likelihood in nats")
    was_training = model.training
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    step = max(1, _ROWS // draws)
    parts = [
        _bound(model, bottleneck, inputs[start : start + step], draws, generator)
        for start in range(0, len(inputs), step)
    ]
    model.train(was_training)
    return torch.cat(parts)


def _bound(
    model: Autoencoder,
    bottleneck: GaussianBottleneck,
    inputs: Tensor,
    draws: int,
    generator: torch.Generator,
) -> Tensor:
    target = model.scaled(inputs.to(model.device))
    mean, log_variance = bottleneck.posterior(model.encode(target))
    noise = torch.randn(draws, *mean.shape, generator=generator).to(mean)
    values = mean + noise * (0.5 * log_variance).exp()
    repeated = target.expand(draws, *target.shape).flatten(0, 1)
    output = model.decode(values.flatten(0, 1), repeated)
    cost = model.likelihood.cost(at_least_float32(output), at_least_float32(repeated))
    likelihood = -cost.double().flatten(1).sum(1).view(draws, -1)
    # log p(z) - log q(z|x): the constants of the two normals cancel.
    ratio = 0.5 * (noise.square() - values.square() + log_variance).double().flatten(2).sum(2)
    return torch.logsumexp(likelihood + ratio, 0) - math.log(draws)
