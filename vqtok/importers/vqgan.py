"""VQGAN (Esser et al., 2021, arXiv:2012.09841) and its descendants: one layout, many names.

* taming-transformers' names: VQGAN itself, Meta's Chameleon, and the image tokenizers of Chameleon
  and Janus in transformers;
* diffusers' ``VQModel``;
* LlamaGen's names, which DeepSeek's own Janus has too.

The weights may lie under a prefix in the checkpoint of a larger model. Chameleon in transformers
has no decoder: the tokenizer then encodes only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from vqtok.autoencoders import Autoencoder
from vqtok.errors import DataError, UsageError
from vqtok.importers.averages import averaged, has_averages
from vqtok.importers.checkpoint import Checkpoint
from vqtok.importers.pixels import with_pixels
from vqtok.importers.weights import Weights, substitute, without_prefix
from vqtok.nn import AbsentDecoder, Stack, VQGANDecoder, VQGANEncoder
from vqtok.quantizers import IBQ, FixedQuantizer, Quantizer, VectorQuantizer

_PREFIXES = (
    *("model.vqmodel.", "vqmodel.", "vqgan."),  # transformers: Chameleon, Janus
    *("gen_vision_model.", "vq_model."),  # DeepSeek's Janus
)
_IGNORED = re.compile(r"loss\..*|quantize\.codebook_used|.*num_batches_tracked")

_RULES = [
    # the ends
    (r"^quant_conv\.", "encoder.projection."),
    (r"^post_quant_conv\.", "decoder.projection."),
    (r"^quantize\.embedding\.weight$", "codebook"),
    (r"^(encoder|decoder)\.conv_in\.", r"\1.input."),
    (r"^(encoder|decoder)\.(norm_out|conv_norm_out)\.", r"\1.norm."),
    (r"^(encoder|decoder)\.conv_out\.", r"\1.output."),
    # the middle: taming, LlamaGen (the same numbers as here), diffusers
    (r"\.mid\.block_1\.", ".middle.0."),
    (r"\.mid\.attn_1\.", ".middle.1."),
    (r"\.mid\.block_2\.", ".middle.2."),
    (r"\.mid\.", ".middle."),
    (r"\.mid_block\.resnets\.0\.", ".middle.0."),
    (r"\.mid_block\.attentions\.0\.", ".middle.1."),
    (r"\.mid_block\.resnets\.1\.", ".middle.2."),
    # the stages
    (r"\.(down|up|conv_blocks|down_blocks|up_blocks)\.(\d+)\.", r".stages.\2."),
    (r"(\.stages\.\d+)\.(block|res|resnets)\.", r"\1.blocks."),
    (r"(\.stages\.\d+)\.(attn|attentions)\.", r"\1.attention."),
    (r"(\.stages\.\d+)\.(down|up)sample(rs\.0)?\.conv\.", r"\1.resample."),
    # inside a block and inside attention
    (r"\.(nin_shortcut|conv_shortcut)\.", ".shortcut."),
    (r"(\.attention\.\d+|\.middle\.1)\.group_norm\.", r"\1.norm."),
    (r"(\.attention\.\d+|\.middle\.1)\.(q|to_q|query)\.", r"\1.query."),
    (r"(\.attention\.\d+|\.middle\.1)\.(k|to_k|key)\.", r"\1.key."),
    (r"(\.attention\.\d+|\.middle\.1)\.(v|to_v|value)\.", r"\1.value."),
    (r"(\.attention\.\d+|\.middle\.1)\.(proj_out|to_out\.0|proj_attn)\.", r"\1.output."),
]  # fmt: skip


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether the names are those of this family."""
    names = without_prefix(checkpoint.tensors, _PREFIXES)
    first = ("down.0.block.0", "down_blocks.0.resnets.0", "conv_blocks.0.res.0")
    return {"quantize.embedding.weight", "quant_conv.weight"} <= set(names) and any(
        f"encoder.{block}.norm1.weight" in names for block in first
    )


def build(
    checkpoint: Checkpoint, compare: str | None = None, pixels: str | None = None
) -> Autoencoder:
    """The model with its weights.

    Args:
        checkpoint: one that :func:`recognises` knows.
        compare: latents with rows of the codebook by ``"distance"``, by ``"angle"`` or by their
            ``"product"``; default: as the model's own code does, which is by product if there are
            running averages as those of IBQ (Shi et al., 2024, arXiv:2412.02692).
            (Janus in transformers goes by distance, but DeepSeek's original by angle: equal only
            where all rows have length 1.)
        pixels: what the model's own code feeds it, ``"unit"`` for 0..1 or ``"signed"`` for -1..1;
            default: 0..1 for aMUSEd, whose config says ``lookup_from_codebook``, else -1..1.

    Raises:
        UsageError: ``compare`` or ``pixels`` is none of these.
        DataError: a tensor is missing, unexpected or of the wrong shape, or the model has a part
            that vqtok lacks.
    """
    if compare not in (None, "distance", "angle", "product"):
        raise UsageError(f"compare must be distance, angle or product, not {compare!r}")
    if compare is None and has_averages(checkpoint.tensors):
        compare = "product"
    tensors = averaged(without_prefix(checkpoint.tensors, _PREFIXES))
    if checkpoint.config.get("norm_type", "group") != "group":
        raise DataError("this VQModel has spatial normalisation (MoVQ), which vqtok does not have")
    weights = Weights(tensors, lambda name: rename(name, _depth_of_decoder(tensors)))
    groups = checkpoint.whole("norm_num_groups", 32)
    encoder = VQGANEncoder(**all_sizes(weights, "encoder", groups))
    decoder: Stack
    if "decoder.input.weight" in weights:
        decoder = VQGANDecoder(**all_sizes(weights, "decoder", groups))
    else:
        decoder = AbsentDecoder(encoder.dim, encoder.downsample)
        weights.drop("decoder.projection.")  # of no use alone
    quantizer = _quantizer(weights, tensors, compare, encoder.dim)
    model = Autoencoder(encoder, quantizer, decoder)
    weights.load_into(model)
    unit = bool(checkpoint.config.get("lookup_from_codebook", False))
    return with_pixels(model, pixels or ("unit" if unit else "signed"))


def rename(name: str, reversed_stages: int) -> str | None:
    """vqtok's name; the ``reversed_stages`` of the decoder, if any, are numbered backwards."""
    if _IGNORED.fullmatch(name):
        return None
    name = substitute(name, _RULES)
    match = re.fullmatch(r"(decoder\.stages\.)(\d+)(\..*)", name)
    if match and reversed_stages:
        name = f"{match[1]}{reversed_stages - 1 - int(match[2])}{match[3]}"
    return name


def _depth_of_decoder(tensors: Mapping[str, Tensor]) -> int:
    """The number of stages of a decoder that numbers them from the finest one, or 0.

    taming's do, and run backwards; all others number them in the order in which they run. The
    finest stage does not upsample.
    """
    stages = {int(m[1]) for name in tensors if (m := re.match(r"decoder\.up\.(\d+)\.", name))}
    return 0 if "decoder.up.0.upsample.conv.weight" in tensors else len(stages)


def sizes_of(weights: Weights, part: str, groups: int) -> dict[str, Any]:
    """The constructor arguments of the encoder or the decoder that the tensors describe, without
    those of the projection beside them."""
    depth = weights.count(f"{part}.stages.")
    order = range(depth) if part == "encoder" else list(reversed(range(depth)))
    if not depth:
        raise DataError(f"the checkpoint has no stages of the {part}")
    first, last = ("input", "output") if part == "encoder" else ("output", "input")
    pixels, latents = (1, 0) if part == "encoder" else (0, 1)
    return {
        "channels": [
            weights.size(f"{part}.stages.{stage}.blocks.0.conv1.weight", 0, groups)
            for stage in order
        ],
        "blocks": weights.count(f"{part}.stages.0.blocks."),
        "attention": [
            level
            for level, stage in enumerate(order)
            if weights.count(f"{part}.stages.{stage}.attention.")
        ],
        "middle_attention": f"{part}.middle.1.norm.weight" in weights,
        "latent_channels": weights.size(f"{part}.{last}.weight", latents),
        "in_channels": weights.size(f"{part}.{first}.weight", pixels),
        "groups": groups,
    }


def all_sizes(weights: Weights, part: str, groups: int) -> dict[str, Any]:
    """With those of the projection."""
    name = f"{part}.projection.weight"
    kernel = weights.size(name, -1) if weights[name].ndim == 4 else 1
    dim = weights.size(name, 0 if part == "encoder" else 1)
    return {**sizes_of(weights, part, groups), "dim": dim, "kernel": kernel}


def _quantizer(
    weights: Weights, tensors: Mapping[str, Tensor], compare: str | None, dim: int
) -> Quantizer:
    """An empty quantizer of the right kind; moves the codebook to its name in it."""
    size = weights.size("codebook", 0)
    janus = "decoder.up.0.upsample.conv.weight" in tensors
    by_angle = "encoder.conv_blocks.0.res.0.norm1.weight" in tensors
    if compare is None:
        compare = "angle" if by_angle else "distance"
    if compare == "product":
        weights.rename("codebook", "quantizer.embeddings")
        return IBQ(size, dim)
    if compare == "angle":
        weights.rename("codebook", "quantizer.embeddings")
        weights.replace("quantizer.embeddings", lambda rows: F.normalize(rows.float(), dim=-1))
        return VectorQuantizer(size, dim, cosine=True)
    if janus:
        weights.rename("codebook", "quantizer.rows")
        return FixedQuantizer(size, dim, compare="distance", output="directions")
    weights.rename("codebook", "quantizer.embeddings")
    return VectorQuantizer(size, dim)
