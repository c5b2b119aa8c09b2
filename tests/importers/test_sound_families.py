"""Tokenizers of sound from elsewhere against the packages that they come from."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import soundfile
import torch
from snac import SNAC
from torch import Tensor
from transformers import (
    DacConfig,
    DacModel,
    EncodecConfig,
    EncodecModel,
    MimiConfig,
    MimiModel,
)

from vqtok.errors import DataError
from vqtok.importers import FAMILIES, Checkpoint, dac, encodec, mimi, snac
from vqtok.samples import sounds
from vqtok.tokenizer import AudioTokenizer, Tokenizer, cut

CODES = 32
HOP = 40


@dataclass
class Rival:
    """A model of transformers, and how codes [q, t] and samples [T] come out of it."""

    model: Any
    family: ModuleType
    encode: Any
    decode: Any

    config: dict[str, Any] | None = None

    @property
    def checkpoint(self) -> Checkpoint:
        config = self.config or self.model.config.to_dict()
        return Checkpoint(dict(self.model.state_dict()), config)

    @property
    def tokenizer(self) -> AudioTokenizer:
        assert self.family.recognises(self.checkpoint)
        # A block of 37 frames: many, and the last one shorter.
        return AudioTokenizer(self.family.build(self.checkpoint), name="imported", block=37)


def speech(samples: int) -> Tensor:
    path = next(path for path in sounds() if "speech" in path.stem)
    wave, _ = soundfile.read(path, dtype="float32", start=20_000, frames=samples)
    return torch.from_numpy(wave)


def set_codebook(rows: Tensor, latents: Tensor, turned: int = 1) -> None:
    """Real latents as codes: EnCodec begins with zeros, where all codes are equal."""
    chosen = latents[torch.linspace(0, len(latents) - 1, CODES).long()]
    rows.copy_(chosen * (1 + 0.1 * torch.randn(CODES, turned)))


@torch.no_grad()
def make_encodec(causal: bool, shortcut: bool) -> Rival:
    torch.manual_seed(0)
    config = EncodecConfig(
        num_filters=4,
        upsampling_ratios=[5, 4, 2],
        hidden_size=16,
        codebook_dim=16,
        codebook_size=CODES,
        target_bandwidths=[3.0],
        sampling_rate=8000,
        use_causal_conv=causal,
        use_conv_shortcut=shortcut,
    )
    model = EncodecModel(config).eval()
    rest = model.encoder(speech(6000)[None, None])
    for layer in model.quantizer.layers:
        set_codebook(layer.codebook.embed, rest[0].T)
        rest = rest - layer.decode(layer.encode(rest))
    return Rival(
        model,
        encodec,
        lambda wave: model.encode(wave[None, None], bandwidth=3.0).audio_codes[0, 0],
        lambda codes: model.decode(codes[None, None], [None]).audio_values[0, 0],
    )


@torch.no_grad()
def make_dac(ratios: tuple[int, ...]) -> Rival:
    torch.manual_seed(0)
    config = DacConfig(
        encoder_hidden_size=8,
        downsampling_ratios=list(ratios),
        upsampling_ratios=list(reversed(ratios)),
        decoder_hidden_size=64,
        n_codebooks=3,
        codebook_size=CODES,
        codebook_dim=4,
        sampling_rate=8000,
    )
    model = DacModel(config).eval()
    rest = model.encoder(speech(6000)[None, None])
    for layer in model.quantizer.quantizers:
        set_codebook(layer.codebook.weight, layer.in_proj(rest)[0].T)
        rest = rest - layer(rest)[0]
    hop = config.hop_length

    def encode(wave: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(wave, (0, -len(wave) % hop))  # as its processor does
        return model.encode(padded[None, None]).audio_codes[0]

    return Rival(
        model, dac, encode, lambda codes: model.decode(audio_codes=codes[None]).audio_values[0]
    )


@torch.no_grad()
def make_mimi() -> Rival:
    torch.manual_seed(0)
    config = MimiConfig(
        num_filters=4,
        upsampling_ratios=[5, 4, 2],
        hidden_size=16,
        codebook_dim=8,
        vector_quantization_hidden_dimension=8,
        codebook_size=CODES,
        num_quantizers=4,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=24,
        sliding_window=7,
        upsample_groups=16,
        layer_scale_initial_scale=0.7,
        sampling_rate=8000,
    )
    model = MimiModel(config).eval()
    latents = model.encoder(speech(6000)[None, None]).latents
    for half in (
        model.quantizer.semantic_residual_vector_quantizer,
        model.quantizer.acoustic_residual_vector_quantizer,
    ):
        rest = half.input_proj(latents)
        for layer in half.layers:
            set_codebook(layer.codebook.embed_sum, rest[0].T)
            layer.codebook.cluster_usage.uniform_(0, 2)
            layer.codebook.embed_sum.mul_(layer.codebook.cluster_usage[:, None])
            rest = rest - layer.decode(layer.encode(rest))
    return Rival(
        model,
        mimi,
        lambda wave: model.encode(wave[None, None]).audio_codes[0],
        lambda codes: model.decode(codes[None]).audio_values[0, 0],
    )


@torch.no_grad()
def make_snac(rates: tuple[int, ...], window: int | None, vq_strides: tuple[int, ...]) -> Rival:
    torch.manual_seed(0)
    config = {
        "sampling_rate": 8000,
        "encoder_dim": 16,
        "encoder_rates": list(rates),
        "decoder_dim": 64,
        "decoder_rates": list(reversed(rates)),
        "attn_window_size": window,
        "codebook_size": CODES,
        "codebook_dim": 4,
        "vq_strides": list(vq_strides),
    }
    model = SNAC(**config).eval()
    for name, value in model.named_parameters():  # so that latents vary more than they are long
        if name.endswith("bias") and not name.startswith("decoder"):
            value.mul_(0.02)
    rest = model.encoder(model.preprocess(speech(6000)[None, None]))
    for layer in model.quantizer.quantizers:
        mean = torch.nn.functional.avg_pool1d(rest, layer.stride, layer.stride)
        set_codebook(layer.codebook.weight, layer.in_proj(mean)[0].T, turned=4)
        rest = rest - layer(rest)[0]
    frame = math.lcm(vq_strides[0], window or 1)

    def encode(wave: Tensor) -> Tensor:
        levels = model.encode(wave[None, None])
        slots = [
            level.reshape(-1, frame // s).T for level, s in zip(levels, vq_strides, strict=True)
        ]
        return torch.cat(slots)

    def decode(codes: Tensor) -> Tensor:
        levels = codes.split([frame // s for s in vq_strides])
        with pytest.MonkeyPatch.context() as patch:  # without noise
            patch.setattr(torch, "randn", torch.zeros)
            return model.decode([level.T.reshape(1, -1) for level in levels])[0, 0]

    return Rival(model, snac, encode, decode, config)


RIVALS = {
    "encodec": lambda: make_encodec(causal=True, shortcut=True),
    "encodec-musicgen": lambda: make_encodec(causal=False, shortcut=False),
    "mimi": make_mimi,
    "snac": lambda: make_snac((2, 4), None, (4, 2, 1)),
    "snac-attention": lambda: make_snac((2, 3), 8, (4, 2, 1)),
    "dac": lambda: make_dac((2, 4, 4)),
    "dac-odd-stride": lambda: make_dac((2, 4, 5)),
}


@pytest.fixture(scope="module", params=RIVALS)
def rival(request: pytest.FixtureRequest) -> Rival:
    made: Rival = RIVALS[request.param]()
    return made


@torch.no_grad()
@pytest.mark.parametrize("samples", [6400, 3217, 23, 1])
def test_codes_and_sounds_are_those_of_the_package(rival: Rival, samples: int) -> None:
    tokenizer, wave = rival.tokenizer, speech(samples)
    expected = rival.encode(wave)
    codes = tokenizer.encode(wave[None, None], num_codebooks=len(expected))
    assert torch.equal(codes[0, :, 0].T, expected)
    assert samples < 1000 or codes.unique().numel() >= CODES / 2
    sound = tokenizer.decode(codes)[0, 0]
    theirs = rival.decode(expected)
    # An odd stride makes DAC lose samples at the end, and with them what the last ones hear.
    lost = len(sound) - len(theirs)
    assert 0 <= lost < tokenizer.hop
    kept = len(theirs) - (200 if lost else 0)
    if kept > 0:
        assert (sound[:kept] - theirs[:kept]).abs().max() < 1e-4


def test_a_stream_gives_the_same_codes(rival: Rival) -> None:
    tokenizer, wave = rival.tokenizer, speech(6100)[None]
    whole = tokenizer.encode(wave[None])[0]
    stream = tokenizer.stream()
    pieces = [stream.encoder.push(piece) for piece in wave.split(777, dim=1)]
    assert torch.equal(torch.cat([*pieces, stream.encoder.finish()]), whole)
    samples = [stream.decoder.push(piece) for piece in whole.split(11)]
    back = torch.cat([*samples, stream.decoder.finish(6100)], dim=1)
    assert torch.equal(back, tokenizer.decode(whole[None], samples=6100)[0])


def test_stereo_and_other_rates_come_back_in_their_length(rival: Rival) -> None:
    tokenizer = rival.tokenizer
    stereo = torch.stack([speech(3000), speech(3000).flip(0)])[None]
    codes = tokenizer.encode(stereo, sample_rate=11_025)
    assert tokenizer.decode(codes, samples=3000, sample_rate=11_025).shape == stereo.shape


def test_saved_and_loaded(rival: Rival, tmp_path) -> None:
    tokenizer = rival.tokenizer
    tokenizer.save_pretrained(tmp_path)
    again = Tokenizer.from_pretrained(tmp_path)
    wave = speech(1000)[None, None]
    assert again.fingerprint == tokenizer.fingerprint
    assert torch.equal(again.encode(wave), tokenizer.encode(wave))


def weight_normed(tensors: dict[str, Tensor], length: str, direction: str) -> dict[str, Tensor]:
    """Every convolution's weight as a length and a direction of arbitrary scale."""
    made = {}
    for name, value in tensors.items():
        if re.search(r"(conv\d?|convtr|conv_t1|proj)\.weight$|layers\.\d+\.weight$", name):
            made[name.removesuffix("weight") + length] = value.flatten(1).norm(dim=1)[:, None, None]
            made[name.removesuffix("weight") + direction] = 3 * value
        else:
            made[name] = value
    return made


def test_the_names_of_the_original_encodec() -> None:
    rival = make_encodec(causal=True, shortcut=True)
    tensors = {}
    for name, value in rival.checkpoint.tensors.items():
        name = re.sub(r"^(encoder|decoder)\.layers\.", r"\1.model.", name)
        transposed = re.match(r"decoder\.model\.(3|6|9)\.conv\.", name)
        name = name.replace(".conv.", ".convtr.convtr." if transposed else ".conv.conv.")
        name = name.replace("parametrizations.weight.original0", "weight_g")
        name = name.replace("parametrizations.weight.original1", "weight_v")
        name = re.sub(
            r"^quantizer\.layers\.(\d+)\.codebook", r"quantizer.vq.layers.\1._codebook", name
        )
        tensors[name] = value
    assert "encoder.model.1.shortcut.conv.conv.weight_g" in tensors
    original = Checkpoint(tensors)
    assert encodec.recognises(original)
    with pytest.raises(DataError, match="--sample-rate"):
        encodec.build(original)
    model = encodec.build(Checkpoint(tensors, {"use_causal_conv": True}), sample_rate=8000)
    theirs = rival.tokenizer
    assert AudioTokenizer(model, name="x", block=37).fingerprint == theirs.fingerprint


def test_the_names_of_mimi() -> None:
    """As transformers saves them, and as moshi does, with the pairs of a head side by side."""
    rival = make_mimi()
    theirs = rival.tokenizer.fingerprint
    saved, original = {}, {}
    for name, value in rival.checkpoint.tensors.items():
        name = re.sub(r"^(encoder|decoder)\.\1_seanet\.", r"\1.", name)
        name = re.sub(r"^(encoder|decoder)\.(\1_transformer|downsample|upsample)\.", r"\2.", name)
        saved[name] = value
        name = re.sub(r"^(encoder|decoder)\.layers\.", r"\1.model.", name)
        name = re.sub(r"^(encoder|decoder)_transformer\.", r"\1_transformer.transformer.", name)
        up = re.match(r"decoder\.model\.(2|5|8)\.conv\.", name)
        name = re.sub(r"\.conv\.", ".convtr.convtr." if up else ".conv.conv.", name)
        name = name.replace("downsample.conv.", "downsample.conv.conv.")
        name = name.replace("upsample.conv.conv.", "upsample.convtr.convtr.convtr.")
        for new, old in (
            ("self_attn.o_proj", "self_attn.out_proj"),
            ("mlp.fc1", "linear1"),
            ("mlp.fc2", "linear2"),
            ("input_layernorm", "norm1"),
            ("post_attention_layernorm", "norm2"),
            ("self_attn_layer_scale", "layer_scale_1"),
            ("mlp_layer_scale", "layer_scale_2"),
            ("semantic_residual_vector_quantizer.layers", "rvq_first.vq.layers"),
            ("acoustic_residual_vector_quantizer.layers", "rvq_rest.vq.layers"),
            ("semantic_residual_vector_quantizer", "rvq_first"),
            ("acoustic_residual_vector_quantizer", "rvq_rest"),
            (".codebook.embed_sum", "._codebook.embedding_sum"),
            (".codebook.initialized", "._codebook._initialized"),
            (".codebook.", "._codebook."),
        ):
            name = name.replace(new, old)
        original[name] = value
    for name in [name for name in original if name.endswith("q_proj.weight")]:
        stem = name.removesuffix("q_proj.weight")
        parts = [original.pop(f"{stem}{part}_proj.weight") for part in "qkv"]
        pairs = [part.unflatten(0, (2, 2, 4)).transpose(1, 2).flatten(0, 2) for part in parts[:2]]
        original[f"{stem}in_proj_weight"] = torch.cat([*pairs, parts[2]])
    assert "encoder_transformer.transformer.layers.0.self_attn.in_proj_weight" in original
    assert "upsample.convtr.convtr.convtr.weight" in original
    assert "quantizer.rvq_rest.vq.layers.2._codebook.cluster_usage" in original
    for tensors in (saved, original):
        checkpoint = Checkpoint(tensors, rival.checkpoint.config)
        assert mimi.recognises(checkpoint)
        model = mimi.build(checkpoint)
        assert AudioTokenizer(model, name="x", block=37).fingerprint == theirs


def test_the_names_of_the_original_dac() -> None:
    rival = make_dac((2, 4, 4))
    unit = {"snake1": "0", "conv1": "1", "snake2": "2", "conv2": "3"}

    def original(name: str) -> str:
        part, _, rest = name.partition(".")
        if part == "quantizer":
            return name
        stack = "block" if part == "encoder" else "model"
        first = {"conv1": "0", "snake1": "4", "conv2": "5"}
        if (head := rest.split(".")[0]) in first:
            return f"{part}.{stack}.{first[head]}.{rest.partition('.')[2]}"
        _, number, kind, *tail = rest.split(".")
        shift = 0 if part == "encoder" else 2
        place = {"snake1": 3 - 3 * (shift > 0), "conv1": 4, "conv_t1": 1}.get(kind)
        if place is None:
            inside = f"block.{int(kind[-1]) - 1 + shift}.block.{unit[tail[0]]}.{tail[1]}"
        else:
            inside = f"block.{place}.{tail[0]}"
        return f"{part}.{stack}.{int(number) + 1}.{inside}"

    renamed = {original(name): value for name, value in rival.checkpoint.tensors.items()}
    tensors = weight_normed(renamed, "weight_g", "weight_v")
    for name in [
        name for name in tensors if re.search(r"\.(block|model)\.(0|1|3|4|5)\.weight$", name)
    ]:
        value = tensors.pop(name)
        tensors[f"{name}_g"] = value.flatten(1).norm(dim=1)[:, None, None]
        tensors[f"{name}_v"] = 3 * value
    checkpoint = Checkpoint(tensors, {"sample_rate": 8000})
    assert "decoder.model.1.block.1.weight_g" in tensors
    assert "encoder.block.1.block.0.block.1.weight_v" in tensors
    assert dac.recognises(checkpoint)
    imported = AudioTokenizer(dac.build(checkpoint), name="x", block=37)
    wave = speech(3000)[None, None]
    assert torch.equal(imported.encode(wave), rival.tokenizer.encode(wave))


def test_what_cannot_be_is_said(rival: Rival) -> None:
    tensors, config = rival.checkpoint.tensors, rival.checkpoint.config
    first = next(name for name in tensors if name.startswith("decoder"))
    with pytest.raises(DataError, match="missing"):
        rival.family.build(Checkpoint({k: v for k, v in tensors.items() if k != first}, config))
    with pytest.raises(DataError, match=r"'encoder\.surprise' is unexpected"):
        rival.family.build(Checkpoint({**tensors, "encoder.surprise": torch.zeros(1)}, config))


def test_a_sound_too_long_for_one_piece_is_refused(monkeypatch) -> None:
    tokenizer = make_encodec(causal=True, shortcut=True).tokenizer
    monkeypatch.setattr(cut, "MAX_WHOLE", 5000)
    with pytest.raises(DataError, match="cut it into pieces"):
        tokenizer.encode(speech(5001)[None, None])
    codes = tokenizer.encode(speech(5000)[None, None])
    with pytest.raises(DataError, match="cut it into pieces"):
        tokenizer.decode(codes.repeat(1, 2, 1, 1))


def test_published_sizes_of_transformers_fit() -> None:
    for model, config, family in (
        (EncodecModel, EncodecConfig(), "encodec"),
        (DacModel, DacConfig(), "dac"),
        (MimiModel, MimiConfig(), "mimi"),
    ):
        with torch.device("meta"):
            published = model(config)
        tensors = {name: torch.ones(v.shape) for name, v in published.state_dict().items()}
        checkpoint = Checkpoint(tensors, config.to_dict())
        built = FAMILIES[family].build(checkpoint)
        assert built.encoder.sample_rate == config.sampling_rate
        assert built.encoder.hop == getattr(config, "hop_length", 1920)
        assert set(built.quantizer.codebook_sizes) == {config.codebook_size}
