"""The classic autoencoders by name, for data of any shape. A new one is one function and one line.

A variant is a function of a sample's shape and of :class:`Options`, which all of them share: they
choose the stacks, the scaling, the likelihood and the corruption. So any mix is a matter of
options: ``variant("vqvae", shape, noise=0.3)`` is a denoising VQ-VAE.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from inspect import signature
from typing import Any, get_type_hints

from vqtok.autoencoders.autoencoder import Autoencoder
from vqtok.autoencoders.bottlenecks import (
    Bottleneck,
    GaussianBottleneck,
    IdentityBottleneck,
    TopK,
)
from vqtok.autoencoders.corruptions import Corruption, GaussianNoise
from vqtok.autoencoders.options import (
    Options,
    Shape,
    check_settings,
    corruption_of,
    likelihood_of,
    scaling_of,
)
from vqtok.autoencoders.penalties import (
    L1,
    AuxK,
    Contractive,
    HutchinsonContractive,
    KLRho,
    Penalty,
)
from vqtok.autoencoders.schedule import Schedule
from vqtok.autoencoders.seq2seq import seq2seq_conv, seq2seq_rnn, seq2seq_transformer
from vqtok.nn import (
    DictionaryDecoder,
    DictionaryEncoder,
    GridDecoder,
    GridEncoder,
    ImageDecoder,
    ImageEncoder,
    MLPDecoder,
    MLPEncoder,
    Stack,
    TiedMLPDecoder,
)
from vqtok.quantizers import Quantizer, VectorQuantizer

# With more latents than this, or several layers, the Jacobian is estimated.
_EXACT_LATENTS = 64


def vanilla(shape: Shape, options: Options) -> Autoencoder:
    """Hidden layers and half as many latents as features (at most 32)."""
    dim = options.code_size or max(1, min(32, math.prod(shape) // 2))
    return compose(shape, options, IdentityBottleneck(dim))


def undercomplete(shape: Shape, options: Options) -> Autoencoder:
    """A narrow code: an eighth of the features (at most 16). ``hidden=()`` makes it linear."""
    dim = options.code_size or max(1, min(16, math.prod(shape) // 8))
    return compose(shape, options, IdentityBottleneck(dim))


def convolutional(shape: Shape, options: Options) -> Autoencoder:
    """Convolutions down to one latent vector and back."""
    dim = options.code_size or 32
    return compose(shape, options, IdentityBottleneck(dim), stack="conv")


def sparse(
    shape: Shape,
    options: Options,
    *,
    k: int = 8,
    activity: str = "top_k",
    corruption: float = 0.03,
) -> Autoencoder:
    """Many latents, few active: a TopK dictionary that revives dead atoms, or the classic
    penalties on a sigmoid layer.

    Args:
        k: active latents per sample (``top_k``).
        activity: "top_k", "l1" or "kl_rho".
        corruption: standard deviation of noise, unless the options choose one: with ``top_k`` it
            keeps a large dictionary from learning small data by heart.
    """
    dim = options.code_size or 4 * min(512, math.prod(shape))
    if activity == "top_k":
        return Autoencoder(
            DictionaryEncoder(shape, dim),
            TopK(dim, k),
            DictionaryDecoder(shape, dim),
            corruption=corruption_of(options) or GaussianNoise(corruption),
            likelihood=likelihood_of(options),
            penalties=[AuxK(k)],
            loss_weights={"aux_k": 1 / 32},
            scaling=scaling_of(shape, options),
        )
    penalties: dict[str, Penalty] = {"l1": L1(), "kl_rho": KLRho()}
    if activity not in penalties:
        raise ValueError(f"activity must be top_k, l1 or kl_rho, not {activity!r}")
    return compose(
        shape,
        options,
        IdentityBottleneck(dim),
        penalties=[penalties[activity]],
        loss_weights={activity: 0.1},
        output="sigmoid",
    )


def denoising(shape: Shape, options: Options, *, corruption: float = 0.3) -> Autoencoder:
    """Sees noisy data, learns the clean ones (Vincent et al. 2008).

    Args:
        corruption: standard deviation of the noise, unless the options choose one.
    """
    dim = options.code_size or max(1, min(64, math.prod(shape)))
    chosen = corruption_of(options) or GaussianNoise(corruption)
    return compose(shape, options, IdentityBottleneck(dim), corruption=chosen)


def contractive(shape: Shape, options: Options, *, weight: float = 0.1) -> Autoencoder:
    """One sigmoid layer whose Jacobian is kept small, with tied weights (Rifai et al. 2011).

    Args:
        weight: of the squared Jacobian norm.
    """
    dim = options.code_size or max(1, min(64, math.prod(shape)))
    exact = dim <= _EXACT_LATENTS and options.stack == "mlp" and not options.hidden
    return compose(
        shape,
        options,
        IdentityBottleneck(dim),
        penalties=[Contractive() if exact else HutchinsonContractive()],
        loss_weights={"contractive": weight},
        output="sigmoid",
        hidden=(),
        tied=True,
    )


def vae(
    shape: Shape, options: Options, *, beta: float = 1.0, warmup: int = 500, free_bits: float = 0.0
) -> Autoencoder:
    """Variational: the latents' KL divergence from a standard normal is part of the loss.

    Args:
        beta: weight of the KL divergence, reached after
        warmup: training steps, from 0.
        free_bits: nats per latent dimension that cost nothing.
    """
    dim = options.code_size or max(1, min(16, math.prod(shape) // 2))
    features = max(2 * dim, 32)
    schedule: Schedule = {"start": 0.0, "end": beta, "steps": warmup} if warmup else beta
    return compose(
        shape,
        options,
        GaussianBottleneck(features, dim, free_bits=free_bits),
        loss_weights={"kl": schedule},
        likelihood="learned_gaussian",
    )


def beta_vae(
    shape: Shape, options: Options, *, beta: float = 4.0, warmup: int = 500
) -> Autoencoder:
    """A VAE with a dearer KL divergence, which separates factors (Higgins et al. 2017)."""
    return vae(shape, options, beta=beta, warmup=warmup)


def vqvae(
    shape: Shape,
    options: Options,
    *,
    codebook_size: int = 256,
    positions: int = 8,
    commitment: float = 0.25,
) -> Autoencoder:
    """Latents become the nearest of a codebook (van den Oord et al. 2017).

    Args:
        codebook_size: K.
        positions: codes per sample (with ``stack="conv"`` the grid's size counts instead).
        commitment: weight of the commitment loss, summed over a sample's latents.
    """
    dim = options.code_size or 16
    values = dim * (positions if options.stack == "mlp" else _grid_positions(shape, options))
    return compose(
        shape,
        options,
        VectorQuantizer(codebook_size, dim),
        loss_weights={"commitment": commitment * values},
        positions=positions,
    )


VARIANTS: dict[str, Callable[..., Autoencoder]] = {
    "vanilla": vanilla,
    "undercomplete": undercomplete,
    "convolutional": convolutional,
    "sparse": sparse,
    "denoising": denoising,
    "contractive": contractive,
    "vae": vae,
    "beta-vae": beta_vae,
    "vqvae": vqvae,
    "seq2seq-rnn": seq2seq_rnn,
    "seq2seq-transformer": seq2seq_transformer,
    "seq2seq-conv": seq2seq_conv,
}


def variant(name: str, shape: Sequence[int], **settings: Any) -> Autoencoder:
    """A variant for samples of a shape, freshly initialised.

    Args:
        name: in :data:`VARIANTS`.
        shape: of a sample: (F,) for the rows of a table, (C, H, W) for images.
        settings: any of :class:`Options`, and the variant's own.

    Raises:
        ValueError: an unknown variant or setting, or one out of range.
    """
    if name not in VARIANTS:
        raise ValueError(f"unknown variant {name!r}, expected one of {list(VARIANTS)}")
    known = variant_settings(name)
    unknown = sorted(settings.keys() - known.keys())
    if unknown:
        raise ValueError(f"{name} has no setting {unknown[0]!r}, expected one of {sorted(known)}")
    check_settings(settings, get_type_hints(Options) | get_type_hints(VARIANTS[name]))
    shared = {field.name for field in fields(Options)}
    options = Options(**{key: value for key, value in settings.items() if key in shared})
    own = {key: value for key, value in settings.items() if key not in shared}
    return VARIANTS[name](tuple(shape), options, **own)


def variant_settings(name: str) -> dict[str, Any]:
    """The settings that a variant takes, and their defaults."""
    shared = {field.name: field.default for field in fields(Options)}
    parameters = signature(VARIANTS[name]).parameters.items()
    own = {key: value.default for key, value in parameters if key not in ("shape", "options")}
    return {**shared, **own}


def compose(
    shape: Shape,
    options: Options,
    bottleneck: Bottleneck | Quantizer,
    *,
    corruption: Corruption | None = None,
    penalties: Sequence[Penalty] = (),
    loss_weights: Mapping[str, Schedule] | None = None,
    likelihood: str = "gaussian",
    stack: str | None = None,
    **layers: Any,
) -> Autoencoder:
    """An autoencoder around a bottleneck, with the stacks that the options choose.

    Args:
        likelihood: unless the options choose one.
        stack: instead of the options'.
        layers: ``positions`` (of quantizers), ``output`` (activation of the encoder), ``hidden``
            (instead of the default), ``tied``; see :func:`_mlp`.
    """
    out_dim = bottleneck.dim if isinstance(bottleneck, Quantizer) else bottleneck.out_dim
    quantized = isinstance(bottleneck, Quantizer)
    if (stack or options.stack) == "conv":
        encoder, decoder = _conv(shape, options, bottleneck.dim, out_dim, quantized)
    else:
        layers["positions"] = layers.get("positions") if quantized else None
        encoder, decoder = _mlp(shape, options, bottleneck.dim, out_dim, **layers)
    return Autoencoder(
        encoder,
        bottleneck,
        decoder,
        corruption=corruption or corruption_of(options),
        likelihood=likelihood_of(options, likelihood),
        penalties=penalties,
        loss_weights=loss_weights,
        scaling=scaling_of(shape, options),
    )


def _mlp(
    shape: Shape,
    options: Options,
    dim: int,
    out_dim: int,
    *,
    positions: int | None,
    output: str = "linear",
    hidden: Sequence[int] | None = None,
    tied: bool = False,
) -> tuple[Stack, Stack]:
    if hidden is None:
        hidden = (max(16, min(256, 2 * math.prod(shape))),)
    if options.hidden is not None:
        hidden = options.hidden
    encoder = MLPEncoder(shape, hidden, dim, positions=positions, output=output)
    if tied and dim == out_dim:
        return encoder, TiedMLPDecoder(shape, hidden, dim)
    return encoder, MLPDecoder(shape, hidden, out_dim, positions=positions)


def _conv(
    shape: Shape, options: Options, dim: int, out_dim: int, grid: bool
) -> tuple[Stack, Stack]:
    if len(shape) != 3:
        raise ValueError(f"convolutions need samples (C, H, W), not {list(shape)}")
    channels = _channels(options)
    if grid:
        return GridEncoder(shape, channels, dim), GridDecoder(shape, channels, out_dim)
    return ImageEncoder(shape, channels, dim), ImageDecoder(shape, channels, out_dim)


def _channels(options: Options) -> Sequence[int]:
    return options.hidden or (32, 64)


def _grid_positions(shape: Shape, options: Options) -> int:
    cells = 2 ** len(_channels(options))
    return math.prod(-(-side // cells) for side in shape[1:])
