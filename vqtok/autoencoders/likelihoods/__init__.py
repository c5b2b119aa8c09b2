"""Likelihoods and plain errors. A new one is a file and a line in the registry."""

from __future__ import annotations

from vqtok.autoencoders.likelihoods.base import Likelihood
from vqtok.autoencoders.likelihoods.bernoulli import Bernoulli
from vqtok.autoencoders.likelihoods.categorical import Categorical
from vqtok.autoencoders.likelihoods.errors import Charbonnier, MeanSquare
from vqtok.autoencoders.likelihoods.gaussian import Gaussian, LearnedGaussian
from vqtok.autoencoders.likelihoods.hyperbolic import Hyperbolic
from vqtok.autoencoders.likelihoods.picture import PictureDistance
from vqtok.autoencoders.likelihoods.sound import SoundDistance

__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "Categorical",
    "Charbonnier",
    "Gaussian",
    "Hyperbolic",
    "LearnedGaussian",
    "Likelihood",
    "MeanSquare",
    "PictureDistance",
    "SoundDistance",
]

LIKELIHOODS: dict[str, type[Likelihood]] = {
    "mse": MeanSquare,
    "charbonnier": Charbonnier,
    "gaussian": Gaussian,
    "learned_gaussian": LearnedGaussian,
    "bernoulli": Bernoulli,
    "hyperbolic": Hyperbolic,
    "categorical": Categorical,
    "picture": PictureDistance,
    "sound": SoundDistance,
}
