"""Sequence-to-sequence autoencoders: a fixed number of latents for each sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vqtok.autoencoders.autoencoder import Autoencoder
from vqtok.autoencoders.bottlenecks import Bottleneck, GaussianBottleneck, IdentityBottleneck, TopK
from vqtok.autoencoders.likelihoods import Categorical, Likelihood
from vqtok.autoencoders.options import Options, Shape, corruption_of, likelihood_of, scaling_of
from vqtok.autoencoders.schedule import Schedule
from vqtok.nn import build_decoder, build_encoder
from vqtok.quantizers import FSQ, ProjectedQuantizer, Quantizer, VectorQuantizer

_DECODERS = ("rnn", "transformer", "parallel", "conv1d")

# What the latents go through: dimensions of a latent to (bottleneck, weights of its losses per
# dimension of a sample's latents).
_SQUEEZES: dict[str, Callable[[int], tuple[Bottleneck | Quantizer, dict[str, float]]]] = {
    "identity": lambda dim: (IdentityBottleneck(dim), {}),
    "gaussian": lambda dim: (GaussianBottleneck(dim, dim), {}),
    "top_k": lambda dim: (TopK(dim, max(1, dim // 4)), {}),
    "vq": lambda dim: (VectorQuantizer(1024, dim), {"commitment": 0.25}),
    "fsq": lambda dim: (ProjectedQuantizer(FSQ([8, 5, 5, 5]), dim=dim), {}),
}


def seq2seq_rnn(
    shape: Shape,
    options: Options,
    *,
    symbols: int | None = None,
    latents: int | None = None,
    bottleneck: str = "identity",
    decoder: str = "rnn",
    depth: int = 1,
    cell: str = "gru",
) -> Autoencoder:
    """A packed bidirectional GRU or LSTM, and a decoder that says one value after the other.

    Args:
        symbols: V of sequences of symbols, of which the last ends a sequence (257 for text); None
            for real values.
        latents: latent vectors per sequence; None for a quarter of the steps (at most 16).
        bottleneck: "identity", "gaussian", "top_k", "vq" (1,024 codes) or "fsq" (1,000 codes).
        decoder: "rnn", "transformer", or "parallel" or "conv1d" (all values at once).
        depth: recurrent layers.
        cell: "gru" or "lstm".
    """
    layers = {"depth": depth, "cell": cell}
    return _compose(
        shape, options, symbols, latents, bottleneck, {"type": "rnn", **layers}, decoder
    )


def seq2seq_transformer(
    shape: Shape,
    options: Options,
    *,
    symbols: int | None = None,
    latents: int | None = None,
    bottleneck: str = "identity",
    decoder: str = "transformer",
    depth: int = 2,
    heads: int = 4,
) -> Autoencoder:
    """A Transformer whose latent tokens are kept, and a decoder that looks at nothing else.

    Args:
        symbols: V of sequences of symbols, of which the last ends a sequence (257 for text); None
            for real values.
        latents: latent vectors per sequence; None for a quarter of the steps (at most 16).
        bottleneck: "identity", "gaussian", "top_k", "vq" (1,024 codes) or "fsq" (1,000 codes).
        decoder: "rnn", "transformer", or "parallel" or "conv1d" (all values at once).
        depth: blocks.
        heads: attention heads.
    """
    layers = {"depth": depth, "heads": heads, "max_length": shape[0], "longest_period": shape[0]}
    return _compose(
        shape, options, symbols, latents, bottleneck, {"type": "transformer", **layers}, decoder
    )


def seq2seq_conv(
    shape: Shape,
    options: Options,
    *,
    symbols: int | None = None,
    latents: int | None = None,
    bottleneck: str = "identity",
    decoder: str = "conv1d",
    depth: int = 2,
) -> Autoencoder:
    """Convolutions: each latent is about a stretch of the sequence, and so are codes.

    Args:
        symbols: V of sequences of symbols, of which the last ends a sequence (257 for text); None
            for real values.
        latents: latent vectors per sequence; None for a quarter of the steps (at most 16).
        bottleneck: "identity", "gaussian", "top_k", "vq" (1,024 codes) or "fsq" (1,000 codes).
        decoder: "rnn", "transformer", or "parallel" or "conv1d" (all values at once).
        depth: residual blocks.
    """
    layers = {"depth": depth, "max_length": shape[0]}
    return _compose(
        shape, options, symbols, latents, bottleneck, {"type": "conv1d", **layers}, decoder
    )


def _compose(
    shape: Shape,
    options: Options,
    symbols: int | None,
    latents: int | None,
    bottleneck: str,
    encoder: dict[str, Any],
    decoder: str,
) -> Autoencoder:
    if len(shape) != (2 if symbols is None else 1):
        raise ValueError(
            f"sequences are [T, C], or [T] of symbols (then say how many); not {list(shape)} "
            f"and symbols={symbols}"
        )
    if decoder not in _DECODERS:
        raise ValueError(f"decoder must be one of {list(_DECODERS)}, not {decoder!r}")
    if bottleneck not in _SQUEEZES:
        raise ValueError(f"bottleneck must be one of {list(_SQUEEZES)}, not {bottleneck!r}")
    if symbols is not None and (options.noise or options.likelihood or options.scaling):
        raise ValueError("symbols take no noise, likelihood or scaling; masked hides some of them")
    count = latents or max(1, min(16, shape[0] // 4))
    dim = options.code_size or (8 if symbols is None else 32)
    squeeze, weights = _SQUEEZES[bottleneck](dim)
    kind = {"channels": shape[1]} if symbols is None else {"symbols": symbols}
    sizes = {"dim": dim, "num_latents": count, "width": (options.hidden or (128,))[0], **kind}
    layers: dict[str, Any] = {"max_length": shape[0]}
    if decoder in ("transformer", "parallel"):
        layers["longest_period"] = shape[0]
    if decoder == encoder["type"]:
        layers = encoder | layers
    loss_weights: dict[str, Schedule] = {
        name: weight * count * dim for name, weight in weights.items()
    }
    if bottleneck == "gaussian":
        loss_weights["kl"] = {"start": 0.0, "end": 1.0, "steps": 500}
    likelihood: Likelihood = Categorical()
    if symbols is None:
        # With a scale that is too wide, a Gaussian bottleneck would be ignored.
        fixed = bottleneck != "gaussian"
        likelihood = likelihood_of(options, "gaussian" if fixed else "learned_gaussian")
    return Autoencoder(
        build_encoder({**encoder, **sizes}),
        squeeze,
        build_decoder({**layers, "type": decoder, **sizes}),
        corruption=corruption_of(options),
        likelihood=likelihood,
        loss_weights=loss_weights,
        scaling=scaling_of(shape, options) if symbols is None else None,
    )
