"""Encoder and decoder stacks. A stack is one class and one line in a registry below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from vqtok.nn.conv import ConvDecoder, ConvEncoder

__all__ = ["DECODERS", "ENCODERS", "ConvDecoder", "ConvEncoder", "build_decoder", "build_encoder"]

ENCODERS: dict[str, type[nn.Module]] = {"conv": ConvEncoder}
DECODERS: dict[str, type[nn.Module]] = {"conv": ConvDecoder}


def build_encoder(config: Mapping[str, Any]) -> nn.Module:
    """The encoder that a config (``encoder.config``, as saved in JSON) describes.

    Raises:
        ValueError: the type is unknown.
        TypeError: an argument is missing or unknown.
    """
    return _build(ENCODERS, "encoder", config)


def build_decoder(config: Mapping[str, Any]) -> nn.Module:
    """The decoder that a config describes; raises as :func:`build_encoder` does."""
    return _build(DECODERS, "decoder", config)


def _build(registry: Mapping[str, type[nn.Module]], kind: str, config: Mapping[str, Any]) -> nn.Module:
    arguments = dict(config)
    name = arguments.pop("type", None)
    if name not in registry:
        raise ValueError(f"unknown {kind} type {name!r}, expected one of {list(registry)}")
    return registry[name](**arguments)
