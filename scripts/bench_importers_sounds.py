"""Models of sound that bench_importers.py compares with: published sizes, random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from bench_importers_rivals import Rival, fill, nearest, sound
from torch import Tensor

from vqtok.tokenizer.segments import codes_to_loudness, loudness_of, loudness_to_codes


def encodec(small: bool, seconds: float) -> Rival:
    from transformers import EncodecConfig, EncodecModel
    from transformers.models.encodec.modeling_encodec import EncodecEuclideanCodebook

    sizes: dict[str, Any] = {"num_filters": 8, "hidden_size": 32, "codebook_dim": 32}
    config = EncodecConfig(**(sizes if small else {}), target_bandwidths=[6.0])
    model = EncodecModel(config).eval()
    x = sound(int(seconds * 24_000))

    def fill_codebooks() -> None:
        rest = model.encoder(x[:, None])
        for layer in model.quantizer.layers:
            fill(layer.codebook.embed, rest[0].T)
            rest = rest - layer.decode(layer.encode(rest))

    return Rival(
        "encodec",
        model,
        lambda x: model.encode(x[:, None], bandwidth=6.0).audio_codes[0].transpose(1, 2),
        lambda codes: model.decode(codes.transpose(1, 2)[None], [None]).audio_values[:, 0],
        x,
        config.to_dict(),
        fill_codebooks,
        (EncodecEuclideanCodebook, "quantize"),
        exact=lambda x: nearest(model.encoder(x[:, None])[0].T, tables(model))[None, :, :8],
    )


def tables(encodec: Any) -> list[Tensor]:
    return [layer.codebook.embed for layer in encodec.quantizer.layers]


def encodec_stereo(small: bool, seconds: float) -> Rival:
    """EnCodec of 48 kHz, its scales as codes before those of each segment, as vqtok has them."""
    from transformers import EncodecConfig, EncodecModel
    from transformers.models.encodec.modeling_encodec import EncodecEuclideanCodebook

    sizes: dict[str, Any] = {"num_filters": 8, "hidden_size": 32, "codebook_dim": 32}
    config = EncodecConfig(
        **(sizes if small else {}),
        target_bandwidths=[3.0, 6.0, 12.0, 24.0],
        sampling_rate=48_000,
        audio_channels=2,
        use_causal_conv=False,
        norm_type="time_group_norm",
        normalize=True,
        chunk_length_s=1.0,
        overlap=0.01,
    )
    model = EncodecModel(config).eval()
    mono = sound(int(seconds * 48_000))
    x = torch.stack([mono, 0.6 * mono.roll(37, 1)], dim=1)

    def fill_codebooks() -> None:
        rest = model.encoder(x[..., :48_000] / loudness_of(x[0, :, :48_000]))
        for layer in model.quantizer.layers:
            fill(layer.codebook.embed, rest[0].T)
            rest = rest - layer.decode(layer.encode(rest))

    def encode(x: Tensor) -> Tensor:
        coded = model.encode(x, bandwidth=24.0)
        last = coded.audio_codes.shape[-1] - (coded.last_frame_pad_length or 0)
        batch = []
        for sample in range(len(x)):
            pieces = []
            for index, scales in enumerate(coded.audio_scales):
                head = torch.zeros(4, 16, dtype=torch.int64)
                head[:, 0] = loudness_to_codes(float(scales[sample]), 1024)
                rows = coded.audio_codes[index, sample].T
                end = last if index + 1 == len(coded.audio_scales) else len(rows)
                pieces += [head, rows[:end]]
            batch.append(torch.cat(pieces))
        return torch.stack(batch)

    def exact(x: Tensor) -> Tensor:
        def of(start: int) -> Tensor:
            wave = x[0, :, start : start + 48_000]
            loudness = loudness_of(wave)
            head = torch.zeros(4, 16, dtype=torch.int64)
            head[:, 0] = loudness_to_codes(float(loudness), 1024)
            rows = model.encoder((wave / loudness)[None])[0].T
            return torch.cat([head, nearest(rows, tables(model))])

        return torch.cat([of(start) for start in range(0, x.shape[-1], 47_520)])[None]

    def decode(codes: Tensor) -> Tensor:
        pieces = codes[0].split(154)
        scales = [torch.tensor([[codes_to_loudness(piece[:4, 0], 1024)]]) for piece in pieces]
        rows = [piece[4:].T for piece in pieces]
        missing = 150 - rows[-1].shape[1]
        frames = torch.stack([F.pad(row, (0, 150 - row.shape[1]))[None] for row in rows])
        return model.decode(frames, scales, last_frame_pad_length=missing).audio_values

    lookup = (EncodecEuclideanCodebook, "quantize")
    settings = config.to_dict()
    return Rival("encodec", model, encode, decode, x, settings, fill_codebooks, lookup, exact=exact)


def dac(small: bool, seconds: float) -> Rival:
    from transformers import DacConfig, DacModel

    sizes: dict[str, Any] = {"encoder_hidden_size": 16, "decoder_hidden_size": 128}
    model = DacModel(DacConfig(**(sizes if small else {}))).eval()
    x = sound(int(seconds * 16_000) // 512 * 512)

    def fill_codebooks() -> None:
        rest = model.encoder(x[:, None])
        for layer in model.quantizer.quantizers:
            fill(layer.codebook.weight, layer.in_proj(rest)[0].T)
            rest = rest - layer(rest)[0]

    return Rival(
        "dac",
        model,
        lambda x: model.encode(x[:, None]).audio_codes.transpose(1, 2),
        lambda codes: model.decode(audio_codes=codes.transpose(1, 2)).audio_values,
        x,
        model.config.to_dict(),
        fill_codebooks,
        (type(model.quantizer.quantizers[0]), "decode_latents"),
    )


def mimi(small: bool, seconds: float) -> Rival:
    from transformers import MimiConfig, MimiModel
    from transformers.models.mimi.modeling_mimi import MimiEuclideanCodebook

    sizes: dict[str, Any] = {"num_filters": 8, "num_hidden_layers": 2, "num_quantizers": 8}
    model = MimiModel(MimiConfig(**(sizes if small else {}))).eval()
    x = sound(int(seconds * 24_000))

    def fill_codebooks() -> None:
        latents = model.encoder(x[:, None]).latents
        for half in (
            model.quantizer.semantic_residual_vector_quantizer,
            model.quantizer.acoustic_residual_vector_quantizer,
        ):
            rest = half.input_proj(latents)
            for layer in half.layers:
                fill(layer.codebook.embed_sum, rest[0].T)
                rest = rest - layer.decode(layer.encode(rest))

    return Rival(
        "mimi",
        model,
        lambda x: model.encode(x[:, None]).audio_codes.transpose(1, 2),
        lambda codes: model.decode(codes.transpose(1, 2)).audio_values[:, 0],
        x,
        model.config.to_dict(),
        fill_codebooks,
        (MimiEuclideanCodebook, "quantize"),
    )


def snac(small: bool, seconds: float) -> Rival:
    """The 24 kHz model; its noise off, as ours is."""
    from snac import SNAC

    strides = [4, 2, 1]
    config: dict[str, Any] = {
        "sampling_rate": 24_000,
        "encoder_dim": 16 if small else 48,
        "encoder_rates": [2, 4, 8, 8],
        "decoder_dim": 128 if small else 1024,
        "decoder_rates": [8, 8, 4, 2],
        "attn_window_size": None,
        "vq_strides": strides,
    }
    model = SNAC(**config).eval()
    for module in model.modules():
        if type(module).__name__ == "NoiseBlock":
            module.linear.parametrizations.weight.original0.zero_()
    x = sound(int(seconds * 24_000) // 2048 * 2048)

    def fill_codebooks() -> None:
        rest = model.encoder(x[:, None])
        for layer in model.quantizer.quantizers:
            mean = F.avg_pool1d(rest, layer.stride, layer.stride)
            fill(layer.codebook.weight, layer.in_proj(mean)[0].T)
            rest = rest - layer(rest)[0]

    def encode(x: Tensor) -> Tensor:
        levels = model.encode(x[:, None])
        frames = [
            level.reshape(len(x), -1, 4 // s) for level, s in zip(levels, strides, strict=True)
        ]
        return torch.cat(frames, dim=-1)

    def decode(codes: Tensor) -> Tensor:
        levels = codes.split([4 // s for s in strides], dim=-1)
        return model.decode([level.flatten(1) for level in levels])[:, 0]

    lookup = (type(model.quantizer.quantizers[0]), "decode_latents")
    return Rival("snac", model, encode, decode, x, config, fill_codebooks, lookup)


SOUNDS: dict[str, Callable[[bool, float], Rival]] = {
    "encodec": encodec,
    "encodec-stereo": encodec_stereo,
    "dac": dac,
    "mimi": mimi,
    "snac": snac,
}
