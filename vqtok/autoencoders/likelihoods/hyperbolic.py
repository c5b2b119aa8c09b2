"""Charbonnier's error as the likelihood that it belongs to."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vqtok.autoencoders.likelihoods.base import Likelihood


class Hyperbolic(Likelihood):
    """Density proportional to exp(-sqrt(error^2 + knee^2) / scale): normal near zero, with the
    tails of a Laplace distribution, so outliers pull less (Barndorff-Nielsen 1977).

    Args:
        scale: of the tails.
        knee: the error where squared turns into absolute.
    """

    def __init__(self, scale: float = 1.0, knee: float = 0.1) -> None:
        super().__init__()
        if not (math.isfinite(scale) and math.isfinite(knee) and scale > 0 and knee > 0):
            raise ValueError(f"scale and knee must be positive, not {scale}, {knee}")
        self.config = {"type": "hyperbolic", "scale": scale, "knee": knee}
        self.scale, self.knee = scale, knee
        ratio = torch.tensor(knee / scale, dtype=torch.float64)
        # log of the integral, 2 knee K_1(knee / scale), with K_1 scaled by exp(knee / scale).
        bessel = float(torch.special.scaled_modified_bessel_k1(ratio))
        self.log_normaliser = math.log(2 * knee * bessel) - knee / scale

    def cost(self, output: Tensor, target: Tensor) -> Tensor:
        error = ((output - target).square() + self.knee**2).sqrt()
        return error / self.scale + self.log_normaliser
