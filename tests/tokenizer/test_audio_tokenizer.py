"""Sounds to codes and back: exact lengths, and codes that depend on the sound alone."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vqtok.errors import DataError, UsageError
from vqtok.media import resample
from vqtok.tokenizer import AudioTokenizer, ImageTokenizer, Tokenizer
from vqtok.tokenizer.blocks import each_alone

RATES = [8000, 11025, 22050, 24000, 44100, 48000, 96000]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.2


def whole_codes(tokenizer: AudioTokenizer, wave: Tensor) -> Tensor:
    """The oracle: the modules themselves, over the whole wave [n] in one call, amid silence."""
    model, hop, around = tokenizer.autoencoder, tokenizer.hop, 50
    frames = -(-len(wave) // hop)
    padded = F.pad(wave, (around * hop, (frames + around) * hop - len(wave)))
    with torch.no_grad():
        latents = model.encoder(padded[None])[:, around : around + frames]
        return model.quantizer(latents).codes[0]


def whole_sound(tokenizer: AudioTokenizer, codes: Tensor, silence: Tensor) -> Tensor:
    """The oracle of decoding: codes [t, q] amid 50 frames of silence, in one call."""
    model, hop, around = tokenizer.autoencoder, tokenizer.hop, 50
    padded = torch.cat([silence.expand(around, -1), codes, silence.expand(around, -1)])
    with torch.no_grad():
        wave = model.decoder(model.quantizer.embed(padded)[None])[0]
    return wave[around * hop : (around + len(codes)) * hop]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "stack",
    [{}, {"block": "recurrent", "blocks": 3}, {"block": "attention", "blocks": 3, "channels": 32}],
)
def test_blocks_give_the_codes_of_the_whole_sound(make_audio_model, stack, causal: bool) -> None:
    model = make_audio_model(causal=causal, **stack)
    tokenizer = AudioTokenizer(model, name="t", block=40)
    wave = noise(1, 1, 64 * 333 + 5)
    codes = tokenizer.encode(wave)
    expected = whole_codes(tokenizer, wave[0, 0])
    assert codes.shape == (1, 334, 1, 3)
    # Another shape may round differently, so a near tie may fall either way.
    assert (codes[0, :, 0] == expected).float().mean() > 0.999
    assert len(codes[..., 0].unique()) > 10
    silence = whole_codes(tokenizer, torch.zeros(64 * 99))[49]
    decoded = tokenizer.decode(codes, samples=wave.shape[2])
    expected = whole_sound(tokenizer, codes[0, :, 0], silence)[: wave.shape[2]]
    torch.testing.assert_close(decoded[0, 0], expected, atol=1e-5, rtol=1e-4)
    assert decoded.std() > 0.05


def test_the_end_of_a_sound_lies_in_silence(audio_tokenizer) -> None:
    """A sound and the same with explicit silence around: the same codes where it is."""
    wave = noise(1, 1, 64 * 30)
    alone = audio_tokenizer.encode(wave)
    padded = audio_tokenizer.encode(F.pad(wave, (64 * 100, 64 * 100)))  # moved by one block
    assert torch.equal(padded[:, 100:130], alone)
    silent = audio_tokenizer.encode(torch.zeros(1, 1, 64 * 10))
    assert (silent == audio_tokenizer._coder.silence).all()


@pytest.mark.parametrize("rate", RATES)
def test_every_rate_keeps_exact_lengths(audio_tokenizer, rate: int) -> None:
    for length in [*range(1, 40), *range(63, 66), 127, 441, 999, 4999, 5000]:
        wave = noise(1, 1, length, seed=length)
        codes = audio_tokenizer.encode(wave, sample_rate=rate)
        inside = -(-length * 24000 // rate)
        assert codes.shape == (1, -(-inside // 64), 1, 3)
        assert audio_tokenizer.decode(codes, length, rate).shape == wave.shape


def test_every_length_up_to_5000_has_its_place() -> None:
    """The arithmetic of lengths, without a network: what went in can always come out."""
    from vqtok.tokenizer.stream import AudioFormat

    for rate in (*RATES, 16000, 32000, 192000):
        for hop in (64, 320):
            form = AudioFormat(rate, 1, 24000, hop)
            frames = [form.frames(samples) for samples in range(5001)]
            assert frames[0] == 0
            assert frames[1] == 1
            assert all(0 <= b - a <= 1 + 3 * 24000 // (rate * hop) for a, b in pairwise(frames))
            for samples, count in enumerate(frames):
                assert samples <= form.samples(count) + 1
                assert form.frames(form.samples(count)) == count


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 5000), st.sampled_from(RATES), st.integers(1, 3))
def test_any_length_rate_and_channels_come_back(audio_tokenizer, length, rate, channels) -> None:
    wave = noise(1, channels, length, seed=length)
    codes = audio_tokenizer.encode(wave, sample_rate=rate)
    decoded = audio_tokenizer.decode(codes, samples=length, sample_rate=rate)
    assert decoded.shape == wave.shape
    assert decoded.dtype == torch.float32


def test_pieces_give_the_same_codes_and_samples(make_audio_model) -> None:
    """A minute of stereo at 44.1 kHz, pushed in several sizes."""
    tokenizer = AudioTokenizer(make_audio_model(hop=320), name="t")
    wave = noise(2, 44100 * 60)
    codes = tokenizer.encode(wave[None], sample_rate=44100)[0]
    sound = tokenizer.decode(codes[None], wave.shape[1], 44100)[0]
    for size in (1_000_003, 100_000, 9_567):
        stream = tokenizer.stream(sample_rate=44100, channels=2)
        pieces = [stream.encoder.push(piece) for piece in wave.split(size, dim=1)]
        assert torch.equal(torch.cat([*pieces, stream.encoder.finish()]), codes)
        given = [stream.decoder.push(piece) for piece in codes.split(size // 320)]
        given.append(stream.decoder.finish(wave.shape[1]))
        assert torch.equal(torch.cat(given, dim=1), sound)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 20_000), st.lists(st.integers(0, 20_000), max_size=5), st.booleans())
def test_any_pieces_give_the_same(audio_tokenizer, length, cuts, resampled) -> None:
    rate = 16000 if resampled else None
    wave = noise(1, length, seed=length)
    codes = audio_tokenizer.encode(wave[None], rate)[0]
    stream = audio_tokenizer.stream(rate)
    sections = sorted(min(cut, length) for cut in cuts)
    pieces = [stream.encoder.push(piece) for piece in wave.tensor_split(sections, dim=1)]
    assert torch.equal(torch.cat([*pieces, stream.encoder.finish()]), codes)
    sections = sorted(min(cut // 64, len(codes)) for cut in cuts)
    given = [stream.decoder.push(piece) for piece in codes.tensor_split(sections)]
    given.append(stream.decoder.finish(length))
    expected = audio_tokenizer.decode(codes[None], length, rate)[0]
    assert torch.equal(torch.cat(given, dim=1), expected)


def test_codes_come_after_the_latency_at_most(audio_tokenizer) -> None:
    stream = audio_tokenizer.stream()
    wave = noise(1, 24000)
    latency = round(stream.encoder.latency * 24000)
    assert latency == (100 + audio_tokenizer._coder.encoder_margin[1]) * 64
    for start in range(0, wave.shape[1], 64):
        stream.encoder.push(wave[:, start : start + 64])
        assert start + 64 - stream.encoder._frames * 64 < latency
    low = audio_tokenizer.stream(block=5)
    codes = torch.cat([low.encoder.push(wave), low.encoder.finish()])
    assert low.encoder.latency < stream.encoder.latency / 5
    assert (codes == audio_tokenizer.encode(wave[None])[0]).float().mean() > 0.999


def test_codes_do_not_depend_on_batch_or_threads(audio_tokenizer) -> None:
    waves = noise(4, 2, 30_000)
    codes = audio_tokenizer.encode(waves)
    sounds = audio_tokenizer.decode(codes, 30_000)
    for index in range(4):
        one = slice(index, index + 1)
        assert torch.equal(audio_tokenizer.encode(waves[one]), codes[one])
        assert torch.equal(audio_tokenizer.decode(codes[one], 30_000), sounds[one])
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(audio_tokenizer.encode(waves), codes)
            assert torch.equal(audio_tokenizer.decode(codes, 30_000), sounds)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_a_block_is_computed_in_one_thread() -> None:
    """Whatever a layer asks first: torch chooses some convolutions by the number of threads."""
    windows = [torch.ones(2)] * 5
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        found = each_alone(
            lambda w: torch.tensor(torch.get_num_threads()), windows, torch.device("cpu")
        )
    finally:
        torch.set_num_threads(before)
    assert [int(threads) for threads in found] == [1] * 5


def test_a_fork_can_go_on(audio_tokenizer) -> None:
    """The threads of the parent are not there in the child."""
    code = """
import os, sys, torch
from vqtok.tokenizer.blocks import each_alone
torch.set_num_threads(2)
windows = [torch.full((2,), float(i)) for i in range(5)]
double = lambda window: window * 2
each_alone(double, windows, torch.device("cpu"))
child = os.fork()
if child == 0:
    done = each_alone(double, windows, torch.device("cpu"))
    os._exit(0 if [int(each[0]) for each in done] == [0, 2, 4, 6, 8] else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_stereo_is_mid_and_side(audio_tokenizer) -> None:
    left, right = noise(1, 1, 5000), noise(1, 1, 5000, seed=1)
    stereo = audio_tokenizer.encode(torch.cat([left, right], dim=1))
    assert torch.equal(stereo[:, :, :1], audio_tokenizer.encode((left + right) / 2))
    assert torch.equal(stereo[:, :, 1:], audio_tokenizer.encode((left - right) / 2))
    mid = audio_tokenizer.decode(stereo[:, :, :1], 5000)
    side = audio_tokenizer.decode(stereo[:, :, 1:], 5000)
    decoded = audio_tokenizer.decode(stereo, 5000)
    torch.testing.assert_close(decoded, torch.cat([mid + side, mid - side], dim=1))
    both = audio_tokenizer.encode(torch.cat([left, left], dim=1))
    assert (both[:, :, 1] == audio_tokenizer._coder.silence).all()


def test_other_numbers_of_channels_are_coded_alone(audio_tokenizer) -> None:
    eight = noise(1, 8, 3000)
    codes = audio_tokenizer.encode(eight)
    for channel in range(8):
        alone = audio_tokenizer.encode(eight[:, channel : channel + 1])
        assert torch.equal(codes[:, :, channel : channel + 1], alone)


def test_another_rate_is_the_resampled_sound(audio_tokenizer) -> None:
    wave = noise(1, 2, 44100)
    inside = torch.from_numpy(resample(wave[0].numpy(), 44100, 24000))[None]
    codes = audio_tokenizer.encode(wave, sample_rate=44100)
    assert torch.equal(codes, audio_tokenizer.encode(inside))
    sound = audio_tokenizer.decode(codes)[0].numpy()
    expected = torch.from_numpy(resample(sound, 24000, 44100))[:, :44100]
    decoded = audio_tokenizer.decode(codes, 44100, 44100)[0]
    torch.testing.assert_close(decoded, expected, atol=1e-6, rtol=0)


def test_fewer_codebooks_are_a_prefix(audio_tokenizer) -> None:
    wave = noise(1, 1, 9000)
    codes = audio_tokenizer.encode(wave)
    assert torch.equal(audio_tokenizer.encode(wave, num_codebooks=2), codes[..., :2])
    assert audio_tokenizer.decode(codes[..., :1], 9000).shape == wave.shape


def test_memory_does_not_grow_with_the_sound(audio_tokenizer) -> None:
    shapes = set()

    def note(module, inputs) -> None:
        shapes.add(tuple(inputs[0].shape))

    model = audio_tokenizer.autoencoder
    hooks = [each.register_forward_pre_hook(note) for each in (model.encoder, model.decoder)]
    try:
        for length in (1, 6400, 100_000):
            codes = audio_tokenizer.encode(noise(1, 2, length))
            audio_tokenizer.decode(codes, length)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(shapes) == 2  # one of windows of samples, one of windows of latents


def test_the_network_ignores_autocast_and_default_dtypes(audio_tokenizer, tmp_path) -> None:
    wave = noise(1, 1, 20_000)
    codes = audio_tokenizer.encode(wave)
    sound = audio_tokenizer.decode(codes)
    audio_tokenizer.save_pretrained(tmp_path)
    try:
        torch.set_default_dtype(torch.float64)
        loaded = Tokenizer.from_pretrained(tmp_path)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(loaded.encode(wave), codes)
            assert torch.equal(loaded.decode(codes), sound)
    finally:
        torch.set_default_dtype(torch.float32)


def test_threads_leave_the_settings_as_they_were(audio_tokenizer) -> None:
    before, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    wave = noise(1, 1, 20_000)
    codes = audio_tokenizer.encode(wave)
    try:
        torch.set_float32_matmul_precision("medium")
        torch.set_num_threads(2)
        with ThreadPoolExecutor(4) as pool:
            done = list(pool.map(audio_tokenizer.encode, [wave] * 12))
        assert all(torch.equal(each, codes) for each in done)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
        torch.set_num_threads(threads)


@pytest.mark.parametrize("level", [0.0, 1e-6, 1.0, 30.0])
def test_silence_whispers_and_clipping(audio_tokenizer, level: float) -> None:
    wave = noise(1, 1, 5000).sign() * level
    decoded = audio_tokenizer.decode(audio_tokenizer.encode(wave), 5000)
    assert decoded.isfinite().all()


def test_codes_can_train_a_model(audio_tokenizer) -> None:
    codes = audio_tokenizer.encode(noise(1, 1, 1000))
    torch.nn.Embedding(32, 3)(codes).sum().backward()


def test_save_and_load(audio_tokenizer, tmp_path) -> None:
    audio_tokenizer.save_pretrained(tmp_path)
    for loaded in (Tokenizer.from_pretrained(tmp_path), AudioTokenizer.from_pretrained(tmp_path)):
        assert isinstance(loaded, AudioTokenizer)
        assert loaded.fingerprint == audio_tokenizer.fingerprint
        assert (loaded.block, loaded.modality) == (100, "audio")
    wave = noise(1, 1, 9000)
    assert torch.equal(loaded.encode(wave), audio_tokenizer.encode(wave))
    with pytest.raises(UsageError, match="is for modality 'audio', not 'image'"):
        ImageTokenizer.from_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for options in ({"block": 0.5}, {"block": -1}, {"blocks": 7}):
        (tmp_path / "config.json").write_text(json.dumps({**config, "options": options}))
        with pytest.raises(DataError, match="cannot be loaded"):
            Tokenizer.from_pretrained(tmp_path)


def test_the_block_is_part_of_the_fingerprint(make_audio_model) -> None:
    model = make_audio_model()
    tokenizer = Tokenizer(model, name="a")
    assert isinstance(tokenizer, AudioTokenizer)
    assert tokenizer.block == 1500  # four seconds
    assert tokenizer.fingerprint != AudioTokenizer(model, name="a", block=100).fingerprint


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(1, 100), r"\[B, C, T\]"),
        (torch.zeros(1, 1, 0), "nothing to encode"),
        (torch.zeros(1, 0, 9), "nothing to encode"),
        (torch.zeros(1, 1, 9, dtype=torch.int16), "floating point, full scale 1"),
        (torch.full((1, 1, 9), torch.nan), "finite"),
        ([1, 2], r"\[B, C, T\]"),
    ],
)
def test_wrong_audio(audio_tokenizer, wrong, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        audio_tokenizer.encode(wrong)


def test_wrong_codes_and_lengths(audio_tokenizer) -> None:
    codes = audio_tokenizer.encode(noise(1, 1, 640))
    assert audio_tokenizer.decode(codes, 577).shape == (1, 1, 577)
    for samples in (0, 576, 641, -5):
        with pytest.raises(ValueError, match=f"10 frames of codes cannot be a sound of {samples}"):
            audio_tokenizer.decode(codes, samples)
    with pytest.raises(ValueError, match="codebook 0 has codes"):
        audio_tokenizer.decode(codes + 1000)
    with pytest.raises(ValueError, match=r"\[B, t, C, q\]"):
        audio_tokenizer.decode(codes[0])
    with pytest.raises(ValueError, match="must be integers"):
        audio_tokenizer.decode(codes.float())
    with pytest.raises(ValueError, match=r"num_codebooks must be in 1\.\.3, not 4"):
        audio_tokenizer.encode(noise(1, 1, 9), num_codebooks=4)
    with pytest.raises(ValueError, match="must be at least 1"):
        audio_tokenizer.stream(sample_rate=0)
    stream = audio_tokenizer.stream(channels=2)
    with pytest.raises(ValueError, match="with C = 2"):
        stream.encoder.push(noise(1, 9))
    with pytest.raises(ValueError, match=r"torch tensor \[t, 2, 3\]"):
        stream.decoder.push(codes[0])


def test_nothing_at_all_is_no_codes(audio_tokenizer) -> None:
    stream = audio_tokenizer.stream(channels=2)
    assert stream.encoder.finish().shape == (0, 2, 3)
    assert stream.decoder.finish().shape == (2, 0)


def test_a_stream_is_spent_once_finished(audio_tokenizer) -> None:
    stream = audio_tokenizer.stream()
    codes = torch.cat([stream.encoder.push(noise(1, 9000)), stream.encoder.finish()])
    stream.decoder.push(codes)
    with pytest.raises(ValueError, match="cannot be a sound of 7 samples"):
        stream.decoder.finish(7)
    stream.decoder.finish(9000)
    for again in (
        lambda: stream.encoder.push(noise(1, 9)),
        stream.encoder.finish,
        lambda: stream.decoder.push(codes),
        stream.decoder.finish,
    ):
        with pytest.raises(ValueError, match="the stream is finished; make another"):
            again()


def test_streams_take_tensors_alone(audio_tokenizer) -> None:
    stream = audio_tokenizer.stream()
    with pytest.raises(ValueError, match=r"torch tensor \[C, n\] with C = 1, not ndarray"):
        stream.encoder.push(noise(1, 9).numpy())
    with pytest.raises(ValueError, match=r"torch tensor \[t, 1, 3\], not list"):
        stream.decoder.push([[[0, 0, 0]]])


def test_a_rate_is_an_integer(audio_tokenizer) -> None:
    with pytest.raises(ValueError, match=r"sample_rate must be an integer, in Hz, not 22050\.5"):
        audio_tokenizer.stream(sample_rate=22050.5)
    with pytest.raises(ValueError, match=r"not 16000\.0"):
        audio_tokenizer.encode(noise(1, 1, 90), sample_rate=16000.0)
    assert audio_tokenizer.stream(sample_rate=torch.tensor(16000).numpy()[()]) is not None
