"""Encoder and decoder stacks. A stack is one class and one line in a registry below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from vqtok.nn.absent import AbsentDecoder
from vqtok.nn.conv import ConvDecoder, ConvEncoder, Stack
from vqtok.nn.conv1d import Conv1dDecoder, Conv1dEncoder
from vqtok.nn.dictionary import DictionaryDecoder, DictionaryEncoder
from vqtok.nn.emu3 import Emu3Decoder, Emu3Encoder
from vqtok.nn.magvit import MAGVITDecoder, MAGVITEncoder
from vqtok.nn.maskgit import MaskGITDecoder, MaskGITEncoder
from vqtok.nn.mimi import MimiDecoder, MimiEncoder
from vqtok.nn.mlp import MLPDecoder, MLPEncoder, TiedMLPDecoder
from vqtok.nn.parallel import ParallelDecoder
from vqtok.nn.rnn import RNNDecoder, RNNEncoder
from vqtok.nn.seanet import SEANetDecoder, SEANetEncoder
from vqtok.nn.segmented import SegmentedDecoder, SegmentedEncoder
from vqtok.nn.small_conv import GridDecoder, GridEncoder, ImageDecoder, ImageEncoder
from vqtok.nn.snac import SNACDecoder, SNACEncoder
from vqtok.nn.spectral import SpectralDecoder, SpectralEncoder
from vqtok.nn.tiled import TiledDecoder, TiledEncoder
from vqtok.nn.transformer import TransformerDecoder, TransformerEncoder
from vqtok.nn.unit import UnitDecoder, UnitEncoder
from vqtok.nn.vqgan import VQGANDecoder, VQGANEncoder
from vqtok.nn.waveform import WaveformDecoder, WaveformEncoder

__all__ = [
    "DECODERS",
    "ENCODERS",
    "AbsentDecoder",
    "Conv1dDecoder",
    "Conv1dEncoder",
    "ConvDecoder",
    "ConvEncoder",
    "DictionaryDecoder",
    "DictionaryEncoder",
    "Emu3Decoder",
    "Emu3Encoder",
    "GridDecoder",
    "GridEncoder",
    "ImageDecoder",
    "ImageEncoder",
    "MAGVITDecoder",
    "MAGVITEncoder",
    "MLPDecoder",
    "MLPEncoder",
    "MaskGITDecoder",
    "MaskGITEncoder",
    "MimiDecoder",
    "MimiEncoder",
    "ParallelDecoder",
    "RNNDecoder",
    "RNNEncoder",
    "SEANetDecoder",
    "SEANetEncoder",
    "SNACDecoder",
    "SNACEncoder",
    "SegmentedDecoder",
    "SegmentedEncoder",
    "SpectralDecoder",
    "SpectralEncoder",
    "Stack",
    "TiedMLPDecoder",
    "TiledDecoder",
    "TiledEncoder",
    "TransformerDecoder",
    "TransformerEncoder",
    "UnitDecoder",
    "UnitEncoder",
    "VQGANDecoder",
    "VQGANEncoder",
    "WaveformDecoder",
    "WaveformEncoder",
    "build_decoder",
    "build_encoder",
    "channels_last",
]

ENCODERS: dict[str, type[Stack]] = {
    "conv": ConvEncoder,
    "vqgan": VQGANEncoder,
    "emu3": Emu3Encoder,
    "maskgit": MaskGITEncoder,
    "magvit": MAGVITEncoder,
    "tiled": TiledEncoder,
    "unit": UnitEncoder,
    "spectral": SpectralEncoder,
    "waveform": WaveformEncoder,
    "seanet": SEANetEncoder,
    "seanet_segments": SegmentedEncoder,
    "mimi": MimiEncoder,
    "snac": SNACEncoder,
    "mlp": MLPEncoder,
    "dictionary": DictionaryEncoder,
    "image": ImageEncoder,
    "grid": GridEncoder,
    "rnn": RNNEncoder,
    "transformer": TransformerEncoder,
    "conv1d": Conv1dEncoder,
}
DECODERS: dict[str, type[Stack]] = {
    "conv": ConvDecoder,
    "vqgan": VQGANDecoder,
    "emu3": Emu3Decoder,
    "maskgit": MaskGITDecoder,
    "magvit": MAGVITDecoder,
    "tiled": TiledDecoder,
    "unit": UnitDecoder,
    "absent": AbsentDecoder,
    "spectral": SpectralDecoder,
    "waveform": WaveformDecoder,
    "seanet": SEANetDecoder,
    "seanet_segments": SegmentedDecoder,
    "mimi": MimiDecoder,
    "snac": SNACDecoder,
    "mlp": MLPDecoder,
    "mlp_tied": TiedMLPDecoder,
    "dictionary": DictionaryDecoder,
    "image": ImageDecoder,
    "grid": GridDecoder,
    "rnn": RNNDecoder,
    "transformer": TransformerDecoder,
    "parallel": ParallelDecoder,
    "conv1d": Conv1dDecoder,
}


def build_encoder(config: Mapping[str, Any]) -> Stack:
    """The encoder that a config (``encoder.config``, as saved in JSON) describes.

    Raises:
        ValueError: the type is unknown.
        TypeError: an argument is missing or unknown.
    """
    return _build(ENCODERS, "encoder", config)


def build_decoder(config: Mapping[str, Any]) -> Stack:
    """The decoder that a config describes; raises as :func:`build_encoder` does."""
    return _build(DECODERS, "decoder", config)


def channels_last(module: nn.Module) -> None:
    """Lay convolution weights out channels last, in place: faster on CPUs and tensor cores."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _build(registry: Mapping[str, type[Stack]], kind: str, config: Mapping[str, Any]) -> Stack:
    arguments = dict(config)
    name = arguments.pop("type", None)
    if name not in registry:
        raise ValueError(f"unknown {kind} type {name!r}, expected one of {list(registry)}")
    if isinstance(arguments.get("layer"), Mapping):
        arguments["layer"] = _build(registry, kind, arguments["layer"])
    return registry[name](**arguments)
