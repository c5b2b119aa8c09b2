"""Autoencoders as compositions, and their presets."""

from __future__ import annotations

from vqtok.autoencoders.autoencoder import Autoencoder, Reconstruction, build_autoencoder
from vqtok.autoencoders.presets import PRESETS, preset_config

__all__ = ["PRESETS", "Autoencoder", "Reconstruction", "build_autoencoder", "preset_config"]
