"""Quantizers of vector-quantize-pytorch, whose state dicts most home-grown VQ-VAEs hold."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from vqtok.errors import DataError
from vqtok.importers.checkpoint import read_checkpoint
from vqtok.importers.weights import Weights, substitute
from vqtok.quantizers import (
    LFQ,
    ClampedFSQ,
    ProjectedQuantizer,
    Quantizer,
    ResidualQuantizer,
    SimVQ,
    SquashedQuantizer,
    SymmetricFSQ,
    VectorQuantizer,
    WideFSQ,
)

_RULES = [
    (r"_codebook\.embed$", "embeddings"),
    (r"_codebook\.cluster_size$", "counts"),
    (r"frozen_codebook$", "vectors"),
    (r"code_transform\.", "transform."),
    (r"^project_(in|out)\.", r"project_\1."),
]
_IGNORED = re.compile(r"(.*\.)?(_codebook\.(initted|embed_avg)|zero)")
_PARTS = ("weight", "bias")
_MARKS = re.compile(r"(.*?)(layers\.0\.)?(_codebook\.embed|frozen_codebook|mask)")


def load_quantizer(
    path: str | Path, *, prefix: str | None = None, cosine: bool = False
) -> Quantizer:
    """The quantizer inside a checkpoint of a model that used vector-quantize-pytorch.

    ``VectorQuantize``, ``ResidualVQ``, ``SimVQ``, ``ResidualSimVQ`` and ``LFQ``, with their
    projections. For FSQ, whose levels a checkpoint does not tell, see :func:`load_fsq`.

    Args:
        path: of the checkpoint, as for :func:`vqtok.importers.load`.
        prefix: of the quantizer's tensors in it, such as ``"vq."``; default: where the first
            codebook is.
        cosine: whether it was made with ``use_cosine_sim``, which the checkpoint doesn't tell.

    Returns:
        one in eval mode that gives the same codes (of LFQ too, whose bits are numbered backwards).

    Raises:
        UsageError: there is no such checkpoint.
        DataError: there is no quantizer in it, or one of another kind.
    """
    tensors = read_checkpoint(path).tensors
    try:
        return quantizer_of(tensors, prefix=prefix, cosine=cosine)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def quantizer_of(
    tensors: Mapping[str, Tensor], *, prefix: str | None = None, cosine: bool = False
) -> Quantizer:
    """As :func:`load_quantizer`, from a state dict."""
    if prefix is None:
        marks = [match[1] for name in tensors if (match := _MARKS.fullmatch(name))]
        if not marks:
            raise DataError("there is no codebook of vector-quantize-pytorch in the checkpoint")
        prefix = marks[0]
    part = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    weights = Weights(
        part, lambda name: None if _IGNORED.fullmatch(name) else substitute(name, _RULES)
    )
    model = _model(weights, cosine)
    weights.load_into(model)
    return model.eval()


def load_fsq(
    path: str | Path,
    levels: Sequence[int],
    *,
    prefix: str = "",
    num_codebooks: int | None = None,
    symmetric: bool = False,
) -> Quantizer:
    """The ``FSQ`` or ``ResidualFSQ`` inside a checkpoint, which holds no more of it than its
    projections.

    Args:
        path: of the checkpoint, as for :func:`vqtok.importers.load`.
        levels: that it was made with.
        prefix: of its tensors in the checkpoint, such as ``"fsq."``.
        num_codebooks: of a ``ResidualFSQ``; default: it is an ``FSQ``.
        symmetric: whether an ``FSQ`` was made with ``preserve_symmetry``.

    Returns:
        one in eval mode that gives the same codes.

    Raises:
        UsageError: there is no such checkpoint.
        DataError: the tensors are those of other levels.
    """
    try:
        return fsq_of(
            read_checkpoint(path).tensors,
            levels,
            prefix=prefix,
            num_codebooks=num_codebooks,
            symmetric=symmetric,
        )
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def fsq_of(
    tensors: Mapping[str, Tensor],
    levels: Sequence[int],
    *,
    prefix: str = "",
    num_codebooks: int | None = None,
    symmetric: bool = False,
) -> Quantizer:
    """As :func:`load_fsq`, from a state dict."""
    model: Quantizer
    if num_codebooks is not None:
        grids = [
            ClampedFSQ(levels, scale=[float(count) ** -q for count in levels])
            for q in range(num_codebooks)
        ]
        limit = [1 + 1 / (count - 1) for count in levels]
        model = SquashedQuantizer(ResidualQuantizer(grids), limit=limit)
    else:
        model = SymmetricFSQ(levels) if symmetric else WideFSQ(levels)
    names = [f"{prefix}project_{side}.{kind}" for side in ("in", "out") for kind in _PARTS]
    weights = Weights(tensors, lambda name: name.removeprefix(prefix) if name in names else None)
    if "project_in.weight" in weights:
        dim = weights.size("project_in.weight", 1)
        for side, size in (("in", model.dim), ("out", dim)):
            if f"project_{side}.bias" not in weights:
                weights.add(f"project_{side}.bias", torch.zeros(size))
        model = ProjectedQuantizer(model, dim=dim)
    weights.load_into(model)
    return model.eval()


def _model(weights: Weights, cosine: bool) -> Quantizer:
    """The quantizer that the tensors describe; moves them to their names in it."""
    projected = "project_in.weight" in weights
    core = "layer." if projected else ""
    stacked = weights.count("layers.")
    model: Quantizer
    if "mask" in weights:
        return _bits(weights, projected)
    if stacked:
        model = ResidualQuantizer(
            [_single(weights, f"layers.{q}.", f"{core}layers.{q}.", cosine) for q in range(stacked)]
        )
    else:
        model = _single(weights, "", core, cosine)
    if projected:
        model = ProjectedQuantizer(model, dim=weights.size("project_in.weight", 1))
    return model


def _single(weights: Weights, prefix: str, new: str, cosine: bool) -> Quantizer:
    """An empty quantizer of one codebook, whose tensors move from ``prefix`` to ``new``."""
    if f"{prefix}vectors" in weights:
        size, dim = (weights.size(f"{prefix}vectors", axis) for axis in (0, 1))
        for name in ("vectors", "transform.weight"):
            weights.rename(f"{prefix}{name}", f"{new}{name}")
        return SimVQ(size, dim)
    heads, size, dim = (weights.size(f"{prefix}embeddings", axis) for axis in (0, 1, 2))
    if heads != 1:
        raise DataError(f"the codebook has {heads} heads; vqtok reads those of one")
    for name in ("embeddings", "counts"):
        weights.rename(f"{prefix}{name}", f"{new}{name}")
    return VectorQuantizer(size, dim, cosine=cosine)


def _bits(weights: Weights, projected: bool) -> Quantizer:
    """LFQ between projections; the first dimension is its most significant bit, here the last."""
    bits = weights.size("mask", 0)
    weights.drop("mask")
    if projected:
        dim = weights.size("project_in.weight", 1)
        weights.replace("project_in.weight", lambda w: w.flip(0))
        weights.replace("project_in.bias", lambda b: b.flip(0))
        weights.replace("project_out.weight", lambda w: w.flip(1))
    else:
        dim = bits
        turned = torch.eye(bits).flip(0)
        for side in ("in", "out"):
            weights.add(f"project_{side}.weight", turned)
            weights.add(f"project_{side}.bias", torch.zeros(bits))
    return ProjectedQuantizer(LFQ(bits), dim=dim)
