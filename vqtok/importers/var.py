"""The tokenizer of VAR, codes at many scales (Tian et al., 2024, arXiv:2404.02905).

The model is one of square images of a size, 256 pixels as published. An image is so many tiles,
each coded alone, its edges repeated outwards; the 680 codes of a tile, scale by scale, are its Q
slots.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from vqtok.autoencoders import Autoencoder
from vqtok.errors import DataError
from vqtok.importers.checkpoint import Checkpoint
from vqtok.importers.vqgan import all_sizes, rename
from vqtok.importers.weights import Weights
from vqtok.nn import TiledDecoder, TiledEncoder, VQGANDecoder, VQGANEncoder
from vqtok.quantizers import MultiScaleQuantizer, PyramidQuantizer, VectorQuantizer

SCALES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
"""As published for 256 pixels; another list is in the config as ``v_patch_nums``."""

_USAGE = "quantize.ema_vocab_hit_SV"


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether the names are those of this family."""
    return {_USAGE, "quantize.embedding.weight"} <= set(checkpoint.tensors)


def build(checkpoint: Checkpoint) -> Autoencoder:
    """The model with its weights.

    Raises:
        DataError: a tensor is missing, unexpected or of the wrong shape, or nothing tells the
            scales.
    """
    tensors = checkpoint.tensors
    scales = list(checkpoint.config.get("v_patch_nums", SCALES))
    if tensors[_USAGE].ndim != 2 or len(tensors[_USAGE]) != len(scales):
        raise DataError(
            f"tensor {_USAGE!r} has shape {list(tensors[_USAGE].shape)}, expected "
            f"{len(scales)} scales ({scales}); others are read from v_patch_nums in config.json"
        )
    depth = len({m[1] for name in tensors if (m := re.match(r"decoder\.up\.(\d+)\.", name))})
    weights = Weights(_unpacked(tensors), lambda name: _rename(name, depth))
    encoder = VQGANEncoder(**all_sizes(weights, "encoder", 32))
    decoder = VQGANDecoder(**all_sizes(weights, "decoder", 32))
    weights.rename("codebook", "quantizer.layer.layer.embeddings")
    size = weights.size("quantizer.layer.layer.embeddings", 0)
    count = weights.count("quantizer.layer.refinements.")
    quantizer = MultiScaleQuantizer(
        VectorQuantizer(size, encoder.dim),
        scales,
        refinements=count,
        shared=_shared(len(scales), count),
    )
    for part in ("encoder", "decoder"):
        weights.move(f"{part}.", f"{part}.layer.")
    side = scales[-1]
    model = Autoencoder(
        TiledEncoder(encoder, side), PyramidQuantizer(quantizer), TiledDecoder(decoder, side)
    )
    weights.load_into(model)
    return model


def _rename(name: str, depth: int) -> str | None:
    if name == _USAGE:
        return None
    name = re.sub(r"^quantize\.quant_resi\.qresi_ls\.", "quantizer.layer.refinements.", name)
    return rename(name, depth)


def _unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values each under a name of its own."""
    parts: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if match := re.fullmatch(r"(.*\.)qkv\.(weight|bias)", name):
            if tensor.ndim == 0 or len(tensor) % 3:
                raise DataError(
                    f"tensor {name!r} has shape {list(tensor.shape)}, not thrice a size"
                )
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                parts[f"{match[1]}{letter}.{match[2]}"] = part
        else:
            parts[name] = tensor
    return parts


def _shared(scales: int, count: int) -> list[int]:
    """The convolution of each scale: the nearest of evenly spaced ones, the first of equals."""
    margin = 1 / 3 / count if count == 4 else 1 / 2 / count
    ticks = np.linspace(margin, 1 - margin, count)
    places = [index / max(scales - 1, 1) for index in range(scales)]
    return [int(np.argmin(np.abs(ticks - place))) for place in places]
