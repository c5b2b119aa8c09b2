"""Quantizers: latents [..., D] to codes [..., Q] and back.

To add one, write its class in a file of its own and its line in :data:`QUANTIZERS`; the shared
tests run over the registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vqtok.quantizers.base import Quantized, Quantizer, without_type
from vqtok.quantizers.gradients import rotation_trick, straight_through
from vqtok.quantizers.residual import ResidualQuantizer
from vqtok.quantizers.vector import VectorQuantizer

__all__ = [
    "QUANTIZERS",
    "Quantized",
    "Quantizer",
    "ResidualQuantizer",
    "VectorQuantizer",
    "build_quantizer",
    "rotation_trick",
    "straight_through",
]

QUANTIZERS: dict[str, type[Quantizer]] = {
    "vector": VectorQuantizer,
    "residual": ResidualQuantizer,
}


def build_quantizer(config: Mapping[str, Any]) -> Quantizer:
    """The quantizer that a config (``quantizer.config``, as saved in JSON) describes.

    Raises:
        ValueError: the type is unknown or an argument is out of range.
        TypeError: an argument is missing or unknown.
    """
    kind = config.get("type")
    if kind not in QUANTIZERS:
        raise ValueError(f"unknown quantizer type {kind!r}, expected one of {list(QUANTIZERS)}")
    arguments = without_type(config)
    if "layers" in arguments:
        arguments["layers"] = [build_quantizer(layer) for layer in arguments["layers"]]
    return QUANTIZERS[kind](**arguments)
