"""Autoencoders as compositions, and their presets.

A new bottleneck, corruption, penalty, likelihood or scaling is one file in the folder of its kind
and one line in the registry there; a new preset is one function and one line in PRESETS.
"""

from __future__ import annotations

from vqtok.autoencoders.autoencoder import Autoencoder, Reconstruction, build_autoencoder
from vqtok.autoencoders.bottlenecks import BOTTLENECKS
from vqtok.autoencoders.corruptions import CORRUPTIONS
from vqtok.autoencoders.likelihoods import LIKELIHOODS
from vqtok.autoencoders.penalties import PENALTIES
from vqtok.autoencoders.presets import PRESETS, preset_config
from vqtok.autoencoders.scalings import SCALINGS
from vqtok.autoencoders.variants import VARIANTS, variant

__all__ = [
    "BOTTLENECKS",
    "CORRUPTIONS",
    "LIKELIHOODS",
    "PENALTIES",
    "PRESETS",
    "SCALINGS",
    "VARIANTS",
    "Autoencoder",
    "Reconstruction",
    "build_autoencoder",
    "preset_config",
    "variant",
]
