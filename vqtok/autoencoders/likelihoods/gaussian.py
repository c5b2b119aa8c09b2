"""Normal noise around the output: squared error in nats."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vqtok.autoencoders.likelihoods.base import Likelihood

_HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


class Gaussian(Likelihood):
    """Normal with a fixed standard deviation.

    Args:
        scale: the standard deviation, in units of the (scaled) data.
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale must be positive, not {scale}")
        self.config = {"type": "gaussian", "scale": scale}
        self.scale = scale

    def cost(self, output: Tensor, target: Tensor) -> Tensor:
        error = (output - target) / self.scale
        return 0.5 * error.square() + (math.log(self.scale) + _HALF_LOG_2_PI)


class LearnedGaussian(Likelihood):
    """Normal with one standard deviation for all values, learned (Rybkin et al. 2020,
    arXiv:2006.13202): reconstruction and KL balance without a weight to tune.

    The standard deviation stays above 0.01.
    """

    def __init__(self) -> None:
        super().__init__()
        self.config = {"type": "learned_gaussian"}
        self.log_scale = nn.Parameter(torch.zeros(()))

    def cost(self, output: Tensor, target: Tensor) -> Tensor:
        floor = math.log(0.01)
        log_scale = floor + nn.functional.softplus(self.log_scale - floor)
        error = (output - target) * (-log_scale).exp()
        return 0.5 * error.square() + log_scale + _HALF_LOG_2_PI
