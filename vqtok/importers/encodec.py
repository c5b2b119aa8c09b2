"""EnCodec (Défossez et al., 2022, arXiv:2210.13438).

Under the names of facebookresearch/encodec and audiocraft, and of transformers' ``EncodecModel``:
the 24 kHz model (causal) and MusicGen's 32 kHz one, mono models of one piece; and the 48 kHz model
of stereo, which codes each second by itself and scales it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vqtok.autoencoders import Autoencoder
from vqtok.errors import DataError
from vqtok.importers.checkpoint import Checkpoint
from vqtok.importers.weights import Weights, substitute
from vqtok.nn import SEANetDecoder, SEANetEncoder, SegmentedDecoder, SegmentedEncoder
from vqtok.quantizers import ResidualQuantizer, VectorQuantizer

_RULES = [
    (r"^(encoder|decoder)\.model\.", r"\1.layers."),
    (r"\.conv\.conv\.", ".conv."),
    (r"\.convtr\.convtr\.", ".conv."),
    (r"\.(conv|convtr)\.norm\.", ".norm."),
    (r"\.parametrizations\.weight\.original0$", ".weight_g"),
    (r"\.parametrizations\.weight\.original1$", ".weight_v"),
    (r"^quantizer\.(vq\.)?layers\.(\d+)\._?codebook\.embed$", r"quantizer.layers.\2.embeddings"),
]
# Statistics of training.
_IGNORED = re.compile(r"quantizer\..*codebook\.(inited|cluster_size|embed_avg)")


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether the names are those of this family."""
    names = checkpoint.tensors
    return any(
        f"quantizer.{codebook}.embed" in names and f"{lstm}.lstm.weight_ih_l0" in map(_stem, names)
        for codebook, lstm in (
            ("vq.layers.0._codebook", "encoder.model"),
            ("layers.0.codebook", "encoder.layers"),
        )
    )


def build(checkpoint: Checkpoint, sample_rate: int | None = None) -> Autoencoder:
    """The model with its weights.

    Args:
        checkpoint: one that :func:`recognises` knows.
        sample_rate: in Hz; default: what the checkpoint's config says, or that of the published
            model with these strides: 24,000, or 48,000 with normalised layers.

    Raises:
        DataError: a tensor is missing, unexpected or of the wrong shape, nothing tells the sample
            rate, or the config is of a model that was never published.
    """
    config = checkpoint.config
    weights = Weights(
        checkpoint.tensors,
        lambda name: None if _IGNORED.fullmatch(name) else substitute(name, _RULES),
    )
    weights.fold_weight_norm()
    depth = len([n for n in weights.numbers("decoder.layers.") if n > 1]) // 2
    strides = [
        weights.size(f"encoder.layers.{3 + 3 * stage}.conv.weight", -1) // 2
        for stage in range(depth)
    ]
    segmented = "encoder.layers.0.norm.weight" in weights
    rate = sample_rate or config.get("sampling_rate")
    if rate is None and strides == [2, 4, 5, 8]:
        rate = 48_000 if segmented else 24_000
    if not isinstance(rate, int):
        raise DataError("nothing in the checkpoint tells its sample rate; give --sample-rate")
    dim = weights.size("decoder.layers.0.conv.weight", 1)
    sizes: dict[str, Any] = {
        "dim": dim,
        "sample_rate": rate,
        "recurrent_layers": _recurrent_layers(weights),
    }
    if segmented:
        sizes |= _segments(config, rate)
    else:
        sizes["causal"] = bool(config.get("use_causal_conv", rate == 24_000))
        sizes["shortcut"] = "encoder.layers.1.shortcut.conv.weight" in weights
    width = weights.size("encoder.layers.0.conv.weight", 0)
    last = weights.size("decoder.layers.0.conv.weight", 0) >> depth
    layers = [
        VectorQuantizer(weights.size(f"quantizer.layers.{q}.embeddings", 0), dim)
        for q in range(weights.count("quantizer.layers."))
    ]
    encoder, decoder = (
        (SegmentedEncoder, SegmentedDecoder) if segmented else (SEANetEncoder, SEANetDecoder)
    )
    model = Autoencoder(
        encoder(width, strides, **sizes),
        ResidualQuantizer(layers),
        decoder(last, strides, **sizes),
    )
    weights.load_into(model)
    return model


def _segments(config: Mapping[str, Any], rate: int) -> dict[str, int]:
    """Length and step of segments, as transformers derives them; without a config as published."""
    published = {
        "audio_channels": 2,
        "use_causal_conv": False,
        "normalize": True,
        "norm_type": "time_group_norm",
    }
    for name, value in published.items():
        if config.get(name, value) != value:
            raise DataError(
                f"the config says {name} = {config[name]!r}; the published model with normalised "
                f"layers has {value!r}"
            )
    seconds, overlap = config.get("chunk_length_s", 1.0), config.get("overlap", 0.01)
    if not all(isinstance(value, (int, float)) for value in (seconds, overlap)):
        raise DataError(
            f"the config says chunk_length_s = {seconds!r}, overlap = {overlap!r}: both must be "
            "numbers for a model with normalised layers"
        )
    segment = int(seconds * rate)
    return {"segment": segment, "step": int((1.0 - overlap) * segment)}


def _stem(name: str) -> str:
    """A name without the number of its layer."""
    return re.sub(r"^(\w+\.\w+)\.\d+\.", r"\1.", name)


def _recurrent_layers(weights: Weights) -> int:
    number = 0
    while f"decoder.layers.1.lstm.weight_ih_l{number}" in weights:
        number += 1
    return number
