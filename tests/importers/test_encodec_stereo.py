"""EnCodec's 48 kHz model, stereo in segments, against transformers."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from transformers import EncodecConfig, EncodecModel

from vqtok.cli import main
from vqtok.errors import DataError, UsageError
from vqtok.importers import Checkpoint, encodec
from vqtok.media import read_audio, write_audio
from vqtok.samples import sounds
from vqtok.tokenizer import AudioTokenizer, Tokenizer
from vqtok.tokenizer.segments import SegmentFormat, codes_to_loudness, loudness_to_codes
from vqtok.tokens import TokenReader

CODES, RATE, SEGMENT, STEP, HOP = 32, 8000, 8000, 7920, 32
HEADER = 7  # codes of 5 bits for 32
BANDWIDTH = 3.75
STEREO = {
    "sampling_rate": RATE,
    "audio_channels": 2,
    "use_causal_conv": False,
    "norm_type": "time_group_norm",
    "normalize": True,
    "chunk_length_s": 1.0,
    "overlap": 0.01,
}


def speech(samples: int) -> Tensor:
    """Stereo [2, samples] whose loudness changes along time."""
    path = next(path for path in sounds() if "speech" in path.stem)
    wave = torch.from_numpy(soundfile.read(path, dtype="float32", start=20_000, frames=40_000)[0])
    wave = wave * torch.linspace(0.2, 1.0, 40_000)
    return torch.stack([wave, 0.6 * wave.roll(37) + 0.1 * wave.flip(0)])[:, :samples]


@cache
def rival() -> EncodecModel:
    """A step is no whole number of hops here, as in the published model."""
    torch.manual_seed(0)
    config = EncodecConfig(
        num_filters=4,
        upsampling_ratios=[4, 4, 2],
        hidden_size=16,
        codebook_dim=16,
        codebook_size=CODES,
        target_bandwidths=[BANDWIDTH],
        **STEREO,
    )
    model = EncodecModel(config).eval()
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim == 1:  # norms begin as the identity
                value.add_(0.1 * torch.randn_like(value))
        rest = model.encoder(speech(SEGMENT)[None])
        for layer in model.quantizer.layers:
            rows = rest[0].T[torch.linspace(0, rest.shape[-1] - 1, CODES).long()]
            layer.codebook.embed.copy_(rows * (1 + 0.1 * torch.randn(CODES, 1)))
            rest = rest - layer.decode(layer.encode(rest))
    return model


def checkpoint() -> Checkpoint:
    return Checkpoint(dict(rival().state_dict()), rival().config.to_dict())


@cache
def tokenizer() -> AudioTokenizer:
    assert encodec.recognises(checkpoint())
    return AudioTokenizer(encodec.build(checkpoint()), name="stereo")


def split(codes: Tensor, samples: int) -> list[tuple[float, Tensor]]:
    """Loudness and codes [q, t] of each segment in codes [t, q]: the layout as documented."""
    found = []
    for start in range(0, samples, STEP):
        frames = -(-min(SEGMENT, samples - start) // HOP)
        head, rest = codes[:HEADER], codes[HEADER:]
        assert not head[:, 1:].any()
        bits = sum(int(code) << 5 * place for place, code in enumerate(head[:, 0]))
        found.append((struct.unpack("<f", struct.pack("<I", bits))[0], rest[:frames].T))
        codes = rest[frames:]
    assert not len(codes)
    return found


# Around the lengths where a segment is full or a last one begins.
LENGTHS = [1, 2, 31, 500, 7920, 7921, 7936, 7999, 8000, 8001, 15_840, 15_921, 16_000, 39_999]


@torch.no_grad()
@pytest.mark.parametrize("samples", LENGTHS)
def test_codes_loudness_and_sounds_are_those_of_transformers(samples: int) -> None:
    wave = speech(samples)[None]
    codes = tokenizer().encode(wave)
    assert samples < SEGMENT or codes.unique().numel() >= CODES / 2
    sound = tokenizer().decode(codes, samples)
    frames = []
    parts = split(codes[0, :, 0], samples)
    for start, (loudness, part) in zip(range(0, samples, STEP), parts, strict=True):
        theirs, scale = rival()._encode_frame(wave[..., start : start + SEGMENT], BANDWIDTH)
        assert torch.equal(part, theirs[0])
        assert loudness == float(scale)
        frames.append(rival()._decode_frame(theirs, scale))
    expected = rival()._linear_overlap_add(frames, STEP)
    assert sound.shape == wave.shape
    assert (sound - expected[..., :samples]).abs().max() < 1e-4


@torch.no_grad()
@pytest.mark.parametrize("samples", [500, 8000, 24_000, 39_999])
def test_the_whole_of_transformers_gives_the_same(samples: int) -> None:
    wave = speech(samples)[None]
    theirs = rival().encode(wave, bandwidth=BANDWIDTH)
    expected = (
        rival()
        .decode(
            theirs.audio_codes,
            theirs.audio_scales,
            padding_mask=torch.ones(1, 2, samples),
            last_frame_pad_length=theirs.last_frame_pad_length,
        )
        .audio_values
    )
    sound = tokenizer().decode(tokenizer().encode(wave), samples)
    assert (sound - expected).abs().max() < 1e-4


def test_lengths_where_transformers_fails_come_back() -> None:
    """Its last segment may end before the one before it, or the one before lack a frame."""
    for samples in (7950, 23_761):
        wave = speech(samples)[None]
        with pytest.raises(RuntimeError), torch.no_grad():
            rival()(wave, bandwidth=BANDWIDTH)
        codes = tokenizer().encode(wave)
        assert tokenizer().decode(codes, samples).shape == wave.shape


def test_fewer_codebooks_are_the_first_ones() -> None:
    wave = speech(9000)[None]
    codes = tokenizer().encode(wave)
    fewer = tokenizer().encode(wave, num_codebooks=1)
    assert torch.equal(fewer, codes[..., :1])
    assert tokenizer().decode(fewer, 9000).shape == wave.shape


@pytest.mark.parametrize("samples", [7936, 8000, 24_100])
def test_a_stream_gives_the_same(samples: int) -> None:
    wave = speech(samples)
    whole = tokenizer().encode(wave[None])[0]
    stream = tokenizer().stream(channels=2)
    pieces = [stream.encoder.push(piece) for piece in wave.split(777, dim=1)]
    assert torch.equal(torch.cat([*pieces, stream.encoder.finish()]), whole)
    parts = [stream.decoder.push(piece) for piece in whole.split(11)]
    assert sum(part.shape[1] for part in parts) >= samples - SEGMENT - 2 * HOP
    back = torch.cat([*parts, stream.decoder.finish(samples)], dim=1)
    assert torch.equal(back, tokenizer().decode(whole[None], samples)[0])


def test_mono_is_stereo_with_equal_channels() -> None:
    mono = speech(9000)[None, :1]
    codes = tokenizer().encode(mono)
    assert torch.equal(codes, tokenizer().encode(mono.repeat(1, 2, 1)))
    both = tokenizer().decode(codes, 9000)
    assert torch.equal(tokenizer().decode(codes, 9000, channels=1), both.mean(1, keepdim=True))
    with pytest.raises(DataError, match="not 3 channels: mix them down"):
        tokenizer().encode(mono.repeat(1, 3, 1))


def test_silence_and_other_rates_come_back_in_their_length() -> None:
    wave = torch.zeros(1, 2, 30_000)
    codes = tokenizer().encode(wave, sample_rate=11_025)
    sound = tokenizer().decode(codes, 30_000, 11_025)
    assert sound.shape == wave.shape
    assert sound.abs().max() < 1e-6  # as loud as it was: 1e-8


form = SegmentFormat(RATE, 2, RATE, HOP, segment=SEGMENT, step=STEP, codebook_size=CODES)
published = SegmentFormat(48_000, 2, 48_000, 320, segment=48_000, step=47_520, codebook_size=1024)


@settings(max_examples=200)
@given(st.integers(0, 300_000), st.sampled_from([form, published]))
def test_frames_tell_how_the_segments_lie(samples: int, form: SegmentFormat) -> None:
    frames = form.frames(samples)
    segments = form.segments(samples)
    assert frames == sum(segments) + form.header * len(segments)
    longest = form.samples(frames)
    assert samples <= longest
    assert form.segments(longest) == segments
    assert form.frames(longest + 1) > frames


def test_the_published_model_has_154_frames_a_segment() -> None:
    assert published.frames(10 * 47_520 + 480) == 10 * 154 + 4 + 2
    assert published.frame_rate == pytest.approx(154 / 0.99)


@given(st.floats(2**-27, 2**20, width=32), st.sampled_from([2, 32, 1000, 1024, 65_536]))
def test_a_loudness_is_exact(loudness: float, size: int) -> None:
    codes = loudness_to_codes(loudness, size)
    assert int(codes.max()) < size
    assert codes_to_loudness(codes, size) == loudness


def test_codes_that_cannot_be_are_refused() -> None:
    codes = tokenizer().encode(speech(9000)[None])
    for value in (0, CODES - 1):  # nothing, or more than 32 bits
        wrong = codes.clone()
        wrong[:, :HEADER] = value
        with pytest.raises(DataError, match="are no loudness"):
            tokenizer().decode(wrong, 9000)
    with pytest.raises(ValueError, match="no whole number of segments"):
        tokenizer().decode(codes[:, : HEADER - 1])
    with pytest.raises(ValueError, match="cannot be a sound of 8000 samples"):
        tokenizer().decode(codes, 8000)


def test_codes_by_bits_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(AudioTokenizer, "choice", lambda *_: object())
    with pytest.raises(UsageError, match="rate_weight is not for"):
        tokenizer().encode(speech(100)[None], rate_weight=1.0)


def original(name: str) -> str:
    """transformers' name as facebookresearch/encodec has it."""
    name = re.sub(r"^(encoder|decoder)\.layers\.", r"\1.model.", name)
    up = re.match(r"decoder\.model\.(3|6|9|12)\.", name)
    name = re.sub(r"\.(conv|norm)\.(\w+)$", rf".{'convtr' if up else 'conv'}.\1.\2", name)
    name = name.replace(".convtr.conv.", ".convtr.convtr.")
    return re.sub(r"^quantizer\.layers\.(\d+)\.codebook", r"quantizer.vq.layers.\1._codebook", name)


def test_the_names_of_the_original() -> None:
    tensors = {original(name): value for name, value in checkpoint().tensors.items()}
    # As in transformers' converter.
    for name in (
        "encoder.model.0.conv.norm.weight",
        "encoder.model.1.shortcut.conv.norm.bias",
        "decoder.model.3.convtr.norm.weight",
        "decoder.model.3.convtr.convtr.bias",
        "quantizer.vq.layers.2._codebook.embed",
    ):
        assert name in tensors
    assert encodec.recognises(Checkpoint(tensors))
    with pytest.raises(DataError, match="--sample-rate"):
        encodec.build(Checkpoint(tensors))
    model = encodec.build(Checkpoint(tensors), sample_rate=RATE)
    assert AudioTokenizer(model, name="x").fingerprint == tokenizer().fingerprint


def test_the_published_size_fits() -> None:
    settings = {**STEREO, "sampling_rate": 48_000, "target_bandwidths": [3.0, 6.0, 12.0, 24.0]}
    config = EncodecConfig(**settings)
    with torch.device("meta"):
        model = EncodecModel(config)
    tensors = {name: torch.ones(value.shape) for name, value in model.state_dict().items()}
    for known in (
        Checkpoint(tensors, config.to_dict()),
        Checkpoint({original(name): value for name, value in tensors.items()}),
    ):
        built = encodec.build(known)
        encoder = built.encoder
        assert (encoder.hop, encoder.segment, encoder.step) == (320, 48_000, 47_520)
        assert encoder.sample_rate == 48_000
        assert built.quantizer.codebook_sizes == (1024,) * 16


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"normalize": False}, "normalize = False"),
        ({"use_causal_conv": True}, "use_causal_conv = True"),
        ({"chunk_length_s": None}, "chunk_length_s = None"),
        ({"overlap": 0.6}, "at least half of the one before"),
    ],
)
def test_models_that_were_never_published_are_refused(changed, message: str, tmp_path) -> None:
    from vqtok.importers import load

    save_file(checkpoint().tensors, tmp_path / "model.safetensors")
    config = rival().config.to_dict() | changed
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_token_files_in_another_process(tmp_path: Path) -> None:
    """Mono and stereo files through encode, verify and, in a process of its own, decode."""
    folder, tokens, back = tmp_path / "stereo", tmp_path / "tokens", tmp_path / "back"
    tokenizer().save_pretrained(folder)
    assert Tokenizer.from_pretrained(folder).fingerprint == tokenizer().fingerprint
    (tmp_path / "in").mkdir()
    wave = speech(20_001).numpy()
    write_audio(tmp_path / "in/mono.wav", wave[:1], 44_100)
    write_audio(tmp_path / "in/stereo.wav", wave, RATE)
    write_audio(tmp_path / "in/surround.wav", np.repeat(wave, 2, 0), RATE)
    command = ["encode", str(tmp_path / "in"), str(tokens), "--tokenizer", str(folder)]
    assert main([*command, "--pack", "entropy"]) == 1  # of three one failed
    assert "not 4 channels" in (tokens / "errors.jsonl").read_text()
    assert main(["verify", str(tokens)]) == 0
    subprocess.run(
        [sys.executable, "-m", "vqtok", "decode", tokens, back, "--tokenizer", folder],
        check=True,
        capture_output=True,
    )
    for sample, (name, channels) in zip(
        TokenReader(tokens), (("mono", 1), ("stereo", 2)), strict=True
    ):
        decoded = read_audio(back / f"{name}.wav")
        assert decoded.samples.shape == (channels, 20_001)
        assert sample.meta["channels"] == channels
        rate = sample.meta["sample_rate"]
        codes = torch.from_numpy(sample.codes.astype(np.int64))[None]
        expected = tokenizer().decode(codes, 20_001, rate, channels)[0].clamp(-1, 1)
        assert np.abs(decoded.samples - expected.numpy()).max() < 1 / 32_000  # 16 bits
