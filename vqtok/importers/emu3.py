"""Emu3's tokenizer (Wang et al., 2024, arXiv:2409.18869), for still images.

Under the names of BAAI's ``Emu3VisionVQModel`` and of transformers' ``Emu3VQVAE``, alone or inside
a whole Emu3. Only what an image passes is kept: of convolutions along time, which see nothing
before the first frame, the last step, or the sums of steps that see equal frames.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from vqtok.autoencoders import Autoencoder
from vqtok.errors import DataError
from vqtok.importers.checkpoint import Checkpoint
from vqtok.importers.vqgan import sizes_of
from vqtok.importers.weights import Weights, substitute, without_prefix
from vqtok.nn import Emu3Decoder, Emu3Encoder
from vqtok.quantizers import VectorQuantizer

_PREFIXES = ("model.vqmodel.", "vqmodel.")
_IGNORED = re.compile(r".*num_batches_tracked")
_RULES = [
    (r"^quantize\.embedding\.weight$", "quantizer.embeddings"),
    (r"^quant_conv\.conv\.", "encoder.quant."),
    (r"^post_quant_conv\.conv\.", "decoder.projection."),
    (r"^(encoder|decoder)\.conv_in\.", r"\1.input."),
    (r"^(encoder|decoder)\.norm_out\.", r"\1.norm."),
    (r"^(encoder|decoder)\.conv_out\.", r"\1.output."),
    (r"\.(middle_block|mid)\.block_1\.", ".middle.0."),
    (r"\.(middle_block|mid)\.attn_1\.", ".middle.1."),
    (r"\.(middle_block|mid)\.attn_norm\.", ".middle.1.norm."),
    (r"\.(middle_block|mid)\.block_2\.", ".middle.2."),
    (r"\.(down_block\.)?down\.(\d+)\.", r".stages.\2."),
    (r"\.(up_block\.)?up\.(\d+)\.", r".stages.\2."),
    (r"(\.stages\.\d+)\.block\.", r"\1.blocks."),
    (r"(\.stages\.\d+)\.attn_norms\.(\d+)\.", r"\1.attention.\2.norm."),
    (r"(\.stages\.\d+)\.attn\.", r"\1.attention."),
    (r"(\.stages\.\d+)\.(down|up)sample\.conv\.", r"\1.resample."),
    (r"\.nin_shortcut\.", ".shortcut."),
    (r"\.(q|q_proj)\.(weight|bias)$", r".query.\2"),
    (r"\.(k|k_proj)\.(weight|bias)$", r".key.\2"),
    (r"\.(v|v_proj)\.(weight|bias)$", r".value.\2"),
    (r"\.(proj_out|out_proj)\.", ".output."),
    (r"\.norm_layer\.", ".norm."),
    (r"\.conv_y\.", ".scale."),
    (r"\.conv_b\.", ".shift."),
    (r"\.time_conv\.(\d+)\.conv\.(conv\.)?", r".time.\1."),
    (r"\.time_res_stack\.(\d+)\.(conv\d)\.conv\.", r".still.\1.\2."),
    (r"\.time_res_stack\.", ".still."),
]


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether the names are those of this family."""
    names = without_prefix(checkpoint.tensors, _PREFIXES)
    return "quantize.embedding.weight" in names and "quant_conv.conv.weight" in names


def build(checkpoint: Checkpoint) -> Autoencoder:
    """The model with its weights.

    Raises:
        DataError: a tensor is missing, unexpected or of the wrong shape, or frames are not taken
            four to one.
    """
    weights = Weights(
        without_prefix(checkpoint.tensors, _PREFIXES),
        lambda name: None if _IGNORED.fullmatch(name) else substitute(name, _RULES),
    )
    for part in ("encoder", "decoder"):
        if weights.count(f"{part}.time.") != 2:
            raise DataError(f"the {part} takes frames together other than four to one")
    depth = weights.count("decoder.stages.")
    weights.renumber("decoder.stages.", lambda stage: depth - 1 - stage)
    _one_frame(weights)
    sizes: dict[str, Any] = {}
    for part in ("encoder", "decoder"):
        sizes[part] = sizes_of(weights, part, 32)
        sizes[part]["dim"] = weights.size("quantizer.embeddings", 1)
    size, dim = (weights.size("quantizer.embeddings", axis) for axis in (0, 1))
    model = Autoencoder(
        Emu3Encoder(**sizes["encoder"]), VectorQuantizer(size, dim), Emu3Decoder(**sizes["decoder"])
    )
    weights.load_into(model)
    return model


def _one_frame(weights: Weights) -> None:
    """Convolutions over frames and places to what they are for one image."""
    blocks = weights.count("encoder.still.")
    last = f"encoder.projection.{blocks + 1}"
    weights.rename("encoder.quant.bias", f"{last}.bias")
    weights.merge(f"{last}.weight", ["encoder.quant.weight"], _last)
    for part, first, new in (
        ("encoder", 1, "encoder.projection"),
        ("decoder", 0, "decoder.frames"),
    ):
        for block in range(weights.count(f"{part}.still.")):
            for conv in ("conv1", "conv2"):
                weights.replace(f"{part}.still.{block}.{conv}.weight", _last)
            weights.move(f"{part}.still.{block}.", f"{new}.{first + block}.")
    halve = "encoder.projection.0"
    first_conv, bias = weights["encoder.time.0.weight"], weights["encoder.time.0.bias"]
    weights.merge(f"{halve}.late.weight", ["encoder.time.0.weight"], lambda w: w.sum(2))
    weights.rename("encoder.time.0.bias", f"{halve}.late.bias")
    weights.add(f"{halve}.early.weight", first_conv[:, :, 2:].sum(2), f"{halve}.late.weight")
    weights.add(f"{halve}.early.bias", bias, f"{halve}.late.bias")
    weights.merge(f"{halve}.both.weight", ["encoder.time.1.weight"], _two)
    weights.rename("encoder.time.1.bias", f"{halve}.both.bias")
    for index in range(2):
        new = f"decoder.frames.{weights.count('decoder.frames.')}.0"
        weights.merge(f"{new}.weight", [f"decoder.time.{index}.weight"], _last)
        weights.rename(f"decoder.time.{index}.bias", f"{new}.bias")
    weights.replace("decoder.projection.weight", _last)


def _last(weight: Tensor) -> Tensor:
    if weight.ndim != 5:
        raise ValueError(f"shape {list(weight.shape)}, expected five axes")
    return weight[:, :, -1]


def _two(weight: Tensor) -> Tensor:
    if weight.ndim != 5:
        raise ValueError(f"shape {list(weight.shape)}, expected five axes")
    return torch.cat([weight[:, :, -2], weight[:, :, -1]], dim=1)
