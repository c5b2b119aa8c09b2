"""Mimi, the codec of Moshi (Défossez et al., 2024, arXiv:2410.00037).

Under the names of kyutai-labs/moshi and of transformers' ``MimiModel``, as it saves them and as
they are in memory. Codes: the semantic codebook first, then the acoustic ones.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from vqtok.autoencoders import Autoencoder
from vqtok.errors import DataError
from vqtok.importers.checkpoint import Checkpoint
from vqtok.importers.weights import Weights, substitute
from vqtok.nn import MimiDecoder, MimiEncoder
from vqtok.quantizers import (
    ProjectedQuantizer,
    Quantizer,
    ResidualQuantizer,
    SummedQuantizer,
    VectorQuantizer,
)

_HALVES = ("semantic", "acoustic")
_RULES = [
    (r"^(encoder|decoder)\.\1_seanet\.", r"\1."),
    (r"^((en|de)coder\.)?(encoder|decoder)_transformer\.(transformer\.)?layers\.", r"\3.blocks."),
    (r"^(encoder\.)?downsample\.(conv\.)+", "encoder.resample.conv."),
    (r"^(decoder\.)?upsample\.(conv\.|convtr\.)+", "decoder.resample.conv."),
    (r"^(encoder|decoder)\.model\.", r"\1.layers."),
    (r"\.conv\.conv\.", ".conv."),
    (r"\.convtr\.convtr\.", ".conv."),
    # the transformers
    (r"\.(norm1|input_layernorm)\.", ".norm1."),
    (r"\.(norm2|post_attention_layernorm)\.", ".norm2."),
    (r"\.(layer_scale_1|self_attn_layer_scale)\.scale$", ".scale1"),
    (r"\.(layer_scale_2|mlp_layer_scale)\.scale$", ".scale2"),
    (r"\.self_attn\.(out_proj|o_proj)\.", ".attention.output."),
    (r"\.self_attn\.in_proj_weight$", ".attention.packed"),
    (r"\.self_attn\.(q|k|v)_proj\.weight$", r".attention.\1"),
    (r"\.(linear1|mlp\.fc1)\.", ".expand."),
    (r"\.(linear2|mlp\.fc2)\.", ".project."),
    # the quantizers
    (r"^quantizer\.(rvq_first|semantic_residual_vector_quantizer)\.(vq\.)?", "semantic."),
    (r"^quantizer\.(rvq_rest|acoustic_residual_vector_quantizer)\.(vq\.)?", "acoustic."),
    (r"\._?codebook\.(embedding_sum|embed_sum)$", ".sum"),
    (r"\._?codebook\.cluster_usage$", ".usage"),
]
_IGNORED = re.compile(r"quantizer\..*codebook\._?initialized")  # a statistic of training


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether the names are those of this family."""
    return any(
        name in checkpoint.tensors
        for name in (
            "quantizer.semantic_residual_vector_quantizer.layers.0.codebook.embed_sum",
            "quantizer.rvq_first.vq.layers.0._codebook.embedding_sum",
        )
    )


def build(checkpoint: Checkpoint) -> Autoencoder:
    """The model with its weights.

    What the tensors do not tell (sample rate, attention heads and window, base of the rotation) is
    taken from the checkpoint's config, or else is as published.

    Raises:
        DataError: a tensor is missing, unexpected or of the wrong shape.
    """
    config = checkpoint.config
    weights = Weights(
        checkpoint.tensors,
        lambda name: None if _IGNORED.fullmatch(name) else substitute(name, _RULES),
    )
    depth = len([n for n in weights.numbers("decoder.layers.") if n > 0]) // 2
    strides = [
        weights.size(f"encoder.layers.{3 + 3 * stage}.conv.weight", -1) // 2
        for stage in range(depth)
    ]
    dim = weights.size("encoder.resample.conv.weight", 0)
    rope = config.get("rope_parameters") or {}
    sizes: dict[str, Any] = {
        "dim": dim,
        "sample_rate": checkpoint.whole("sampling_rate", 24_000),
        "depth": weights.count("encoder.blocks."),
        "heads": checkpoint.whole("num_attention_heads", 8),
        "hidden": weights.size("encoder.blocks.0.expand.weight", 0),
        "window": checkpoint.whole("sliding_window", 250),
        "base": rope.get("rope_theta", config.get("rope_theta", 10_000.0)),
    }
    for part in ("encoder", "decoder"):
        for block in range(weights.count(f"{part}.blocks.")):
            _pack(weights, f"{part}.blocks.{block}.attention", sizes["heads"])
    width = weights.size("encoder.layers.0.conv.weight", 0)
    quantizer = SummedQuantizer([_half(weights, number, dim) for number in (0, 1)])
    model = Autoencoder(
        MimiEncoder(width, strides, **sizes), quantizer, MimiDecoder(width, strides, **sizes)
    )
    weights.load_into(model)
    return model


def _pack(weights: Weights, attention: str, heads: int) -> None:
    """One tensor for queries, keys and values, whose heads have their pairs half a head apart."""
    packed = f"{attention}.query_key_value.weight"
    if f"{attention}.packed" in weights:  # moshi: pairs side by side
        weights.merge(packed, [f"{attention}.packed"], lambda rows: _apart(rows, heads))
    else:
        weights.merge(packed, [f"{attention}.{name}" for name in "qkv"], _stack)


def _stack(*parts: Tensor) -> Tensor:
    return torch.cat(parts)


def _apart(rows: Tensor, heads: int) -> Tensor:
    query, key, value = rows.chunk(3)
    return torch.cat(
        [_split(part, heads).transpose(1, 2).flatten(0, 2) for part in (query, key)] + [value]
    )


def _split(rows: Tensor, heads: int) -> Tensor:
    return rows.reshape(heads, -1, 2, rows.shape[-1])


def _half(weights: Weights, number: int, dim: int) -> Quantizer:
    """An empty quantizer of the semantic or the acoustic codebooks; moves them to their names."""
    half, new = _HALVES[number], f"quantizer.layers.{number}"
    count = weights.count(f"{half}.layers.")
    projected = f"{half}.input_proj.weight" in weights
    core = f"{new}.layer" if projected else new
    layers: list[Quantizer] = []
    for q in range(count):
        old = f"{half}.layers.{q}"
        weights.merge(f"{core}.layers.{q}.embeddings", [f"{old}.sum", f"{old}.usage"], _mean)
        size, inner = (weights.size(f"{core}.layers.{q}.embeddings", axis) for axis in (0, 1))
        layers.append(VectorQuantizer(size, inner))
    if not layers:
        raise DataError(f"the checkpoint has no {half} codebooks")
    residual = ResidualQuantizer(layers)
    if not projected:
        return residual
    for side, size in (("in", residual.dim), ("out", dim)):
        weights.rename(f"{half}.{side}put_proj.weight", f"{new}.project_{side}.weight")
        weights.add(f"{new}.project_{side}.bias", torch.zeros(size))
    return ProjectedQuantizer(residual, dim=dim)


def _mean(total: Tensor, usage: Tensor) -> Tensor:
    return total.float() / usage.float().clamp(min=1e-5)[:, None]
