"""Named models: ``vqtok train PRESET``. A preset is one function and one line in the registry."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

from vqtok.autoencoders.autoencoder import Autoencoder
from vqtok.autoencoders.likelihoods import PictureDistance, SoundDistance
from vqtok.nn import ConvDecoder, ConvEncoder, SpectralDecoder, SpectralEncoder
from vqtok.quantizers import BeamResidualQuantizer, ResidualQuantizer, VectorQuantizer


def photo() -> Autoencoder:
    """Photos at downsample 8, four residual codebooks of 1,024: 0.16 to 0.63 bits per pixel."""
    return residual_conv(
        encoder_blocks=(1, 3),
        decoder_blocks=(2, 3),
        encoder_channels=(64, 128),
        decoder_channels=(88, 160),
    )


def photo_lm(*, edges: float = 0.0) -> Autoencoder:
    """Photos at downsample 16, one codebook of 16,384: 256 codes for 256 x 256 pixels. ``edges``
    weighs the steps between neighbouring pixels, see :class:`PictureDistance`."""
    if not isinstance(edges, (int, float)) or not 0 <= edges < math.inf:
        raise ValueError(f"edges must be a weight of at least 0, not {edges!r}")
    dim = 32
    # A batch has far fewer latents than there are codes, so the means run over many steps.
    quantizer = VectorQuantizer(16_384, dim, decay=0.998, revive_below=0.08)
    return Autoencoder(
        ConvEncoder((64, 96, 160), (0, 1, 2), dim=dim),
        quantizer,
        ConvDecoder((64, 128, 192), (1, 2, 2), dim=dim),
        likelihood=PictureDistance(edges=edges) if edges else "mse",
        loss_weights={"commitment": 0.025},
    )


def photo_tiny() -> Autoencoder:
    """The photo model in miniature, for tests and first experiments."""
    return residual_conv(
        encoder_blocks=(0, 1),
        decoder_blocks=(0, 1),
        encoder_channels=(16, 24),
        decoder_channels=(16, 24),
        codebook_size=64,
        num_codebooks=2,
    )


def audio(*, block: str = "conv", causal: bool = False) -> Autoencoder:
    """Sound at 24 kHz, ten residual codebooks of 1,024 at 75 Hz: 0.75 to 7.5 kbit/s, and with an
    entropy coder about two thirds of that."""
    return residual_spectral(
        channels=224,
        encoder_blocks=4,
        decoder_blocks=8,
        num_codebooks=10,
        beam=4,
        loudness=0.4,
        block=block,
        causal=causal,
    )


def audio_tiny(*, causal: bool = False) -> Autoencoder:
    """The audio model in miniature, at 8 kHz, for tests and first experiments."""
    return residual_spectral(
        channels=32,
        encoder_blocks=1,
        decoder_blocks=1,
        dim=16,
        hop=160,
        sample_rate=8000,
        codebook_size=64,
        num_codebooks=2,
        causal=causal,
    )


def residual_conv(
    *,
    encoder_blocks: Sequence[int],
    decoder_blocks: Sequence[int],
    encoder_channels: Sequence[int],
    decoder_channels: Sequence[int],
    dim: int = 32,
    codebook_size: int = 1024,
    num_codebooks: int = 4,
) -> Autoencoder:
    """A convolutional autoencoder around a residual quantizer with dropout."""
    layers = [VectorQuantizer(codebook_size, dim) for _ in range(num_codebooks)]
    return Autoencoder(
        ConvEncoder(encoder_channels, encoder_blocks, dim=dim),
        ResidualQuantizer(layers, dropout=0.5),
        ConvDecoder(decoder_channels, decoder_blocks, dim=dim),
        loss_weights={"commitment": 0.025},
    )


def residual_spectral(
    *,
    channels: int,
    encoder_blocks: int,
    decoder_blocks: int,
    dim: int = 128,
    hop: int = 320,
    sample_rate: int = 24_000,
    codebook_size: int = 1024,
    num_codebooks: int = 8,
    beam: int = 1,
    loudness: float = 0.0,
    block: str = "conv",
    causal: bool = False,
) -> Autoencoder:
    """A spectral autoencoder for sound around a residual quantizer with dropout, which keeps the
    best ``beam`` sums as it looks for codes."""
    if not isinstance(causal, bool):
        raise ValueError(f"causal must be true or false, not {causal!r}")
    layers = [VectorQuantizer(codebook_size, dim) for _ in range(num_codebooks)]
    quantizer = ResidualQuantizer(layers, dropout=0.5)
    if beam > 1:
        quantizer = BeamResidualQuantizer(layers, beam=beam, dropout=0.5)
    sizes: dict[str, Any] = {"dim": dim, "hop": hop, "sample_rate": sample_rate}
    sizes |= {"block": block, "causal": causal}
    return Autoencoder(
        SpectralEncoder(channels, encoder_blocks, **sizes),
        quantizer,
        SpectralDecoder(channels, decoder_blocks, **sizes),
        likelihood=SoundDistance(sample_rate, loudness=loudness),
        loss_weights={"commitment": 0.025},
    )


PRESETS: dict[str, Callable[..., Autoencoder]] = {
    "photo": photo,
    "photo-lm": photo_lm,
    "photo-tiny": photo_tiny,
    "audio": audio,
    "audio-tiny": audio_tiny,
}


def preset_config(name: str, **settings: Any) -> dict[str, Any]:
    """The config of a preset, changed by settings of its own (keywords of its function).

    Raises:
        ValueError: the name or a setting is unknown, or a setting is out of range.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}, expected one of {list(PRESETS)}")
    known = list(signature(PRESETS[name]).parameters)
    for setting in settings:
        if setting not in known:
            raise ValueError(f"{name} has no setting {setting!r}; it has {known or 'none'}")
    return PRESETS[name](**settings).config
