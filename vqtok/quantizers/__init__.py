"""Quantizers: latents [..., D] to codes [..., Q] and back.

To add one, write its class in a file of its own and its line in :data:`QUANTIZERS`; the shared
tests run over the registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vqtok.quantizers.base import Quantized, Quantizer, without_type
from vqtok.quantizers.beam_residual import BeamResidualQuantizer
from vqtok.quantizers.bsq import BSQ
from vqtok.quantizers.fixed import FixedQuantizer
from vqtok.quantizers.fsq import FSQ
from vqtok.quantizers.gradients import rotation_trick, straight_through
from vqtok.quantizers.grouped import GroupedQuantizer
from vqtok.quantizers.gumbel import GumbelQuantizer
from vqtok.quantizers.ibq import IBQ
from vqtok.quantizers.ifsq import IFSQ
from vqtok.quantizers.lfq import LFQ
from vqtok.quantizers.multirate import MultiRateQuantizer
from vqtok.quantizers.multiscale import MultiScaleQuantizer
from vqtok.quantizers.projected import ProjectedQuantizer
from vqtok.quantizers.pyramid import PyramidQuantizer
from vqtok.quantizers.random_projection import RandomProjectionQuantizer
from vqtok.quantizers.residual import ResidualQuantizer
from vqtok.quantizers.residual_fsq import ClampedFSQ, residual_fsq
from vqtok.quantizers.shared_residual import SharedResidualQuantizer
from vqtok.quantizers.simvq import SimVQ
from vqtok.quantizers.squashed import SquashedQuantizer
from vqtok.quantizers.summed import SummedQuantizer
from vqtok.quantizers.vector import VectorQuantizer
from vqtok.quantizers.wide_fsq import SymmetricFSQ, WideFSQ

__all__ = [
    "BSQ",
    "FSQ",
    "IBQ",
    "IFSQ",
    "LFQ",
    "QUANTIZERS",
    "BeamResidualQuantizer",
    "ClampedFSQ",
    "FixedQuantizer",
    "GroupedQuantizer",
    "GumbelQuantizer",
    "MultiRateQuantizer",
    "MultiScaleQuantizer",
    "ProjectedQuantizer",
    "PyramidQuantizer",
    "Quantized",
    "Quantizer",
    "RandomProjectionQuantizer",
    "ResidualQuantizer",
    "SharedResidualQuantizer",
    "SimVQ",
    "SquashedQuantizer",
    "SummedQuantizer",
    "SymmetricFSQ",
    "VectorQuantizer",
    "WideFSQ",
    "build_quantizer",
    "residual_fsq",
    "rotation_trick",
    "straight_through",
]

QUANTIZERS: dict[str, type[Quantizer]] = {
    "vector": VectorQuantizer,
    "simvq": SimVQ,
    "ibq": IBQ,
    "gumbel": GumbelQuantizer,
    "random_projection": RandomProjectionQuantizer,
    "fixed": FixedQuantizer,
    "fsq": FSQ,
    "ifsq": IFSQ,
    "wide_fsq": WideFSQ,
    "symmetric_fsq": SymmetricFSQ,
    "clamped_fsq": ClampedFSQ,
    "lfq": LFQ,
    "bsq": BSQ,
    "projected": ProjectedQuantizer,
    "grouped": GroupedQuantizer,
    "residual": ResidualQuantizer,
    "shared_residual": SharedResidualQuantizer,
    "beam_residual": BeamResidualQuantizer,
    "summed": SummedQuantizer,
    "multirate": MultiRateQuantizer,
    "squashed": SquashedQuantizer,
    "pyramid": PyramidQuantizer,
    "multiscale": MultiScaleQuantizer,
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
    if "layer" in arguments:
        arguments["layer"] = build_quantizer(arguments["layer"])
    if "layers" in arguments:
        arguments["layers"] = [build_quantizer(layer) for layer in arguments["layers"]]
    return QUANTIZERS[kind](**arguments)
