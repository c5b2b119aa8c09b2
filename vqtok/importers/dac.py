"""DAC, the Descript Audio Codec (Kumar et al., 2023, arXiv:2306.06546).

Under its own names (weight-normalised, ``.pth``) and under those of transformers' ``DacModel``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from vqtok.autoencoders import Autoencoder
from vqtok.errors import DataError
from vqtok.importers.checkpoint import Checkpoint
from vqtok.importers.weights import Weights, substitute
from vqtok.nn import WaveformDecoder, WaveformEncoder
from vqtok.quantizers import FixedQuantizer, ProjectedQuantizer, Quantizer, ResidualQuantizer

QUANTIZER_RULES = [
    (r"^quantizer\.quantizers\.(\d+)\.in_proj\.", r"quantizer.layers.\1.project_in."),
    (r"^quantizer\.quantizers\.(\d+)\.out_proj\.", r"quantizer.layers.\1.project_out."),
    (r"^quantizer\.quantizers\.(\d+)\.codebook\.weight$", r"quantizer.layers.\1.layer.rows"),
    (r"\.parametrizations\.weight\.original0$", ".weight_g"),
    (r"\.parametrizations\.weight\.original1$", ".weight_v"),
]
# Within a residual unit; within a stage of the encoder: three units, snake, convolution; of the
# decoder: snake, convolution, three units.
_UNIT = {"snake1": "0", "conv1": "1.conv", "snake2": "2", "conv2": "3.conv"}


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether the names are those of this family."""
    names = checkpoint.tensors
    return "quantizer.quantizers.0.codebook.weight" in names and any(
        name in names
        for name in ("encoder.block.0.res_unit1.snake1.alpha", "decoder.model.1.block.0.alpha")
    )


def build(checkpoint: Checkpoint, sample_rate: int | None = None) -> Autoencoder:
    """The model with its weights.

    Args:
        checkpoint: one that :func:`recognises` knows.
        sample_rate: in Hz; default: what the checkpoint's config says.

    Raises:
        DataError: a tensor is missing, unexpected or of the wrong shape, or nothing tells the
            sample rate.
    """
    config = checkpoint.config
    rate = sample_rate or config.get("sampling_rate") or config.get("sample_rate")
    if not isinstance(rate, int):
        raise DataError(
            "nothing in the checkpoint tells its sample rate (there is no config.json beside it); "
            "give --sample-rate"
        )
    names = checkpoint.tensors
    depth = _depth(names)
    weights = Weights(names, lambda name: _rename(name, depth))
    weights.fold_weight_norm()
    last = 2 + 5 * depth
    strides = [
        weights.size(f"encoder.layers.{5 + 5 * stage}.conv.weight", -1) // 2
        for stage in range(depth)
    ]
    dim = weights.size(f"encoder.layers.{last}.conv.weight", 0)
    width = weights.size("decoder.layers.0.conv.weight", 0)
    model = Autoencoder(
        WaveformEncoder(
            weights.size("encoder.layers.0.conv.weight", 0),
            strides,
            dim=dim,
            sample_rate=rate,
            ends="cut",
        ),
        ResidualQuantizer(factorised_layers(weights, dim)),
        WaveformDecoder(width >> depth, strides, dim=dim, sample_rate=rate, ends="cut"),
    )
    weights.load_into(model)
    return model


def factorised_layers(weights: Weights, dim: int) -> list[Quantizer]:
    """Empty quantizers for the codebooks, each between projections and compared by angle."""
    return [
        ProjectedQuantizer(
            FixedQuantizer(
                weights.size(f"quantizer.layers.{q}.layer.rows", 0),
                weights.size(f"quantizer.layers.{q}.layer.rows", 1),
                compare="angle",
            ),
            dim=dim,
        )
        for q in range(weights.count("quantizer.layers."))
    ]


def _depth(names: Mapping[str, Tensor]) -> int:
    """The number of stages; DAC's own names count three layers beside them as blocks too."""
    blocks = {int(m[1]) for name in names if (m := re.match(r"encoder\.block\.(\d+)\.", name))}
    own = "decoder.model.1.block.0.alpha" in names
    return len(blocks) - 3 if own else len(blocks)


def _rename(name: str, depth: int) -> str:
    name = substitute(name, QUANTIZER_RULES)
    end = 1 + 5 * depth
    if match := re.fullmatch(r"(encoder|decoder)\.(?:block|model)\.(\d+)\.(.*)", name):
        part, number, rest = match[1], int(match[2]), match[3]
        if "unit" in rest or re.match(r"(snake1|conv1|conv_t1)\.", rest):  # transformers
            return f"{part}.layers.{1 + 5 * number + _place(part, rest)}.{_inside(rest)}"
        if number == 0:
            return f"{part}.layers.0.conv.{rest}"
        if number <= depth and (inner := re.fullmatch(r"block\.(\d)\.(.*)", rest)):
            layer = 5 * number - 4 + int(inner[1])
            return f"{part}.layers.{layer}.{_own_inside(part, int(inner[1]), inner[2])}"
        return (
            f"{part}.layers.{end}.{rest}"
            if number == depth + 1
            else f"{part}.layers.{end + 1}.conv.{rest}"
        )
    name = re.sub(r"^(encoder|decoder)\.conv1\.", r"\1.layers.0.conv.", name)
    name = re.sub(r"^(encoder|decoder)\.snake1\.", rf"\1.layers.{end}.", name)
    return re.sub(r"^(encoder|decoder)\.conv2\.", rf"\1.layers.{end + 1}.conv.", name)


def _place(part: str, rest: str) -> int:
    """Where transformers' part of a stage is among its five."""
    if match := re.match(r"res_unit([123])\.", rest):
        return int(match[1]) - 1 + 2 * (part == "decoder")
    is_snake = rest.startswith("snake1")
    return (3 if is_snake else 4) if part == "encoder" else (0 if is_snake else 1)


def _inside(rest: str) -> str:
    """What remains of transformers' name within that part."""
    if match := re.fullmatch(r"res_unit[123]\.(\w+)\.(\w+)", rest):
        return f"layers.{_UNIT.get(match[1], match[1])}.{match[2]}"
    kind, _, tensor = rest.partition(".")
    return tensor if kind == "snake1" else f"conv.{tensor}"


def _own_inside(part: str, number: int, rest: str) -> str:
    """What remains of DAC's own name within the part ``number`` of a stage."""
    if match := re.fullmatch(r"block\.(\d)\.(\w+)", rest):
        return f"layers.{match[1]}.{'conv.' if match[1] in '13' else ''}{match[2]}"
    is_conv = number == (4 if part == "encoder" else 1)
    return f"conv.{rest}" if is_conv else rest
