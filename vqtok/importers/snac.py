"""SNAC, codes at several rates (Siuzdak et al., 2024, arXiv:2410.14411): the package snac's names.

A frame is what the package pads a sound to: one step of the coarsest codebook and one window of
attention. Its Q codes are those of the package, level by level: 7 a frame of the 24 kHz model, 60
of the others.
"""

from __future__ import annotations

import math
import re
from typing import Any

from vqtok.autoencoders import Autoencoder
from vqtok.errors import DataError
from vqtok.importers.checkpoint import Checkpoint
from vqtok.importers.dac import QUANTIZER_RULES, factorised_layers
from vqtok.importers.weights import Weights, substitute
from vqtok.nn import SNACDecoder, SNACEncoder
from vqtok.quantizers import MultiRateQuantizer

_RULES = [
    *QUANTIZER_RULES,
    (r"^(encoder|decoder)\.(block|model)\.", r"\1.layers."),
    (r"\.block\.", ".layers."),
    (r"\.to_qkv\.", ".query_key_value."),
    (r"\.to_out\.", ".output."),
    (r"^((encoder|decoder)\.layers\..*\.?\d+)\.(weight(_g|_v)?|bias)$", r"\1.conv.\3"),
]
_CONSTANT = re.compile(r".*\.rel_pos\.inv_freq")
_NOISE = re.compile(r"decoder\.layers\.(\d+)\.layers\.2\.linear\.weight_(g|v)")


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether the names are those of this family."""
    names = checkpoint.tensors
    return "quantizer.quantizers.0.codebook.weight" in names and any(
        f"decoder.model.1.{length}" in names
        for length in ("parametrizations.weight.original0", "weight_g")
    )


def build(checkpoint: Checkpoint) -> Autoencoder:
    """The model with its weights; decoding is without noise.

    Raises:
        DataError: a tensor is missing, unexpected or of the wrong shape, or there is no config that
            tells the rates of the codebooks.
    """
    config = checkpoint.config
    missing = [key for key in ("sampling_rate", "vq_strides") if key not in config]
    if missing:
        raise DataError(
            f"nothing in the checkpoint tells {' and '.join(missing)}: put the model's "
            "config.json beside it"
        )
    window = config.get("attn_window_size", 32) or 0
    strides = list(config["vq_strides"])
    weights = Weights(checkpoint.tensors, _rename)
    _drop_noise(weights)
    weights.fold_weight_norm()
    parts = weights.numbers("encoder.layers.")
    rates = [
        weights.size(f"encoder.layers.{stage + 1}.layers.4.conv.weight", -1) // 2
        for stage in range(len(parts) - 2 - bool(window))
    ]
    width = weights.size("decoder.layers.1.conv.weight", 0)
    sizes: dict[str, Any] = {
        "size": weights.size("decoder.layers.0.conv.weight", 0),
        "frame": math.lcm(strides[0], window or 1),
        "window": window,
        "sample_rate": config["sampling_rate"],
    }
    model = Autoencoder(
        SNACEncoder(weights.size("encoder.layers.0.conv.weight", 0), rates, **sizes),
        MultiRateQuantizer(
            factorised_layers(weights, sizes["size"]), strides=strides, frame=sizes["frame"]
        ),
        SNACDecoder(width >> len(rates), rates, **sizes),
    )
    weights.load_into(model)
    return model


def _rename(name: str) -> str | None:
    return None if _CONSTANT.fullmatch(name) else substitute(name, _RULES)


def _drop_noise(weights: Weights) -> None:
    """Forget what scales the noise of each stage of the decoder; the layers after it move up."""
    for stage in weights.numbers("decoder.layers."):
        block = f"decoder.layers.{stage}.layers."
        if f"{block}2.linear.weight_v" not in weights:
            continue
        channels = weights.size(f"{block}1.conv.weight_v", 1)
        if weights.size(f"{block}2.linear.weight_v", 0) != channels:
            raise DataError(f"the noise of {block}2 is not of {channels} channels")
        weights.drop(f"{block}2.")
        for layer in weights.numbers(block):
            if layer > 2:
                weights.move(f"{block}{layer}.", f"{block}{layer - 1}.")
