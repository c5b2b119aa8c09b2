"""Corruptions. A new one is a file and a line in the registry."""

from __future__ import annotations

from vqtok.autoencoders.corruptions.base import Corruption
from vqtok.autoencoders.corruptions.gaussian import GaussianNoise
from vqtok.autoencoders.corruptions.masking import Masking
from vqtok.autoencoders.corruptions.salt_and_pepper import SaltAndPepper

__all__ = ["CORRUPTIONS", "Corruption", "GaussianNoise", "Masking", "SaltAndPepper"]

CORRUPTIONS: dict[str, type[Corruption]] = {
    "gaussian": GaussianNoise,
    "masking": Masking,
    "salt_and_pepper": SaltAndPepper,
}
