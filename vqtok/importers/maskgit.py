"""MaskGIT's VQGAN and Open-MAGVIT2, tokenizers without attention.

The first (Chang et al., 2022, arXiv:2202.04200) under the names of huggingface/open-muse's
``MaskGitVQGAN``, the second (Luo et al., 2024, arXiv:2409.04410) under those of
TencentARC/SEED-Voken, with its averaged weights where the checkpoint has them.
``scripts/check_maskgit.py`` compares the first with Google's own code.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from vqtok.autoencoders import Autoencoder
from vqtok.errors import DataError
from vqtok.importers.averages import averaged
from vqtok.importers.checkpoint import Checkpoint
from vqtok.importers.pixels import with_pixels
from vqtok.importers.weights import Weights, substitute
from vqtok.nn import MAGVITDecoder, MAGVITEncoder, MaskGITDecoder, MaskGITEncoder
from vqtok.quantizers import LFQ, VectorQuantizer

_GROUPS = 32  # of channels, normalised together
_IGNORED = re.compile(r"(loss|perceptual_loss|discriminator)\..*|quantize\.(mask|zero|codebook)")
_RULES = [
    (r"^quantize\.embedding\.weight$", "quantizer.embeddings"),
    (r"^(encoder|decoder)\.conv_in\.", r"\1.input."),
    (r"^(encoder|decoder)\.norm_out\.", r"\1.norm."),
    (r"^(encoder|decoder)\.conv_out\.", r"\1.output."),
    (r"^(encoder|decoder)\.mid(_block)?\.", r"\1.middle."),
    (r"^(encoder|decoder)\.(down|up)\.(\d+)\.block\.", r"\1.stages.\3."),
    (r"^(encoder|decoder)\.(down|up)\.(\d+)\.(downsample|upsample_conv)\.", r"\1.stages.\3.turn."),
    (r"^decoder\.up\.(\d+)\.upsample\.conv1\.", r"decoder.stages.\1.turn.0."),
    (r"^decoder\.adaptive\.(\d+)\.gamma\.", r"decoder.told.\1.scale."),
    (r"^decoder\.adaptive\.(\d+)\.beta\.", r"decoder.told.\1.shift."),
    (r"\.nin_shortcut\.", ".shortcut."),
]


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether the names are those of this family."""
    names = checkpoint.tensors
    maskgit = "quantize.embedding.weight" in names and "encoder.mid.0.norm1.weight" in names
    return (
        maskgit and "quant_conv.weight" not in names
    ) or "decoder.adaptive.0.gamma.weight" in names


def build(checkpoint: Checkpoint, pixels: str | None = None) -> Autoencoder:
    """The model with its weights.

    Args:
        checkpoint: one that :func:`recognises` knows.
        pixels: what the model's own code feeds it, ``"unit"`` for 0..1 or ``"signed"`` for -1..1;
            default: 0..1 for MaskGIT, -1..1 for Open-MAGVIT2.

    Raises:
        UsageError: ``pixels`` is none of these.
        DataError: a tensor is missing, unexpected or of the wrong shape.
    """
    weights = Weights(
        averaged(checkpoint.tensors),
        lambda name: None if _IGNORED.fullmatch(name) else substitute(name, _RULES),
    )
    magvit = "decoder.told.0.scale.weight" in weights
    depth = weights.count("decoder.stages.")
    if not depth:
        raise DataError("the checkpoint has no stages of the decoder")
    blocks = weights.count("encoder.middle.")
    sizes: dict[str, Any] = {
        "channels": [
            weights.size(f"encoder.stages.{stage}.0.conv1.weight", 0, _GROUPS)
            for stage in range(depth)
        ],
        "blocks": blocks,
        "dim": weights.size("decoder.input.weight", 1),
        "in_channels": weights.size("encoder.input.weight", 1),
    }
    for part in ("encoder", "decoder"):
        for stage in range(depth):
            weights.move(f"{part}.stages.{stage}.turn.", f"{part}.stages.{stage}.{blocks}.")
    for name in ("stages", "told"):
        weights.renumber(f"decoder.{name}.", lambda stage: depth - 1 - stage)
    if magvit:
        for stage in range(depth - 1):
            for kind in ("weight", "bias"):
                weights.replace(f"decoder.stages.{stage}.{blocks}.0.{kind}", _by_channel)
        model = Autoencoder(MAGVITEncoder(**sizes), LFQ(sizes["dim"]), MAGVITDecoder(**sizes))
    else:
        _fold_shortcuts(weights, depth)
        size = weights.size("quantizer.embeddings", 0)
        quantizer = VectorQuantizer(size, sizes["dim"])
        model = Autoencoder(MaskGITEncoder(**sizes), quantizer, MaskGITDecoder(**sizes))
    weights.load_into(model)
    return with_pixels(model, pixels or ("signed" if magvit else "unit"))


def _by_channel(outputs: Tensor) -> Tensor:
    """Outputs by place, then channel, to by channel, then place."""
    return outputs.reshape(4, -1, *outputs.shape[1:]).transpose(0, 1).reshape(outputs.shape)


def _fold_shortcuts(weights: Weights, depth: int) -> None:
    """MaskGIT's shortcut maps what a block made, not what it was given: part of its last layer."""
    for part in ("encoder", "decoder"):
        for stage in range(depth):
            block = f"{part}.stages.{stage}.0"
            if f"{block}.shortcut.weight" in weights:
                names = [f"{block}.conv2.weight", f"{block}.shortcut.weight"]
                weights.merge(names[0], names, _fold)


def _fold(conv: Tensor, shortcut: Tensor) -> Tensor:
    matrix = shortcut.flatten(1).double()
    whole = torch.eye(len(matrix), dtype=torch.float64) + matrix
    return torch.einsum("oc,cihw->oihw", whole, conv.double())
