"""What is promised of the bundled audio tokenizer, on a sound that it was not trained on."""

from importlib import resources

import pytest
import torch

from vqtok.media import read_audio
from vqtok.nn.sound_losses import SoundLoss
from vqtok.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_pretrained("audio")


@pytest.fixture(scope="module")
def speech():
    path = resources.files("vqtok") / "samples" / "sounds" / "speech-7312.flac"
    samples = read_audio(str(path), 24_000).samples[:, : 4 * 24_000]
    return torch.from_numpy(samples)[None]


def test_size():
    files = (resources.files("vqtok") / "pretrained" / "audio").iterdir()
    sizes = {file.name: len(file.read_bytes()) for file in files}
    priors = [sizes.pop(name) for name in list(sizes) if name.startswith("prior")]
    assert max(priors) <= 1e6
    assert sum(sizes.values()) <= 12e6


def test_rates(tokenizer):
    assert (tokenizer.sample_rate, tokenizer.frame_rate) == (24_000, 75)
    assert tokenizer.codebook_sizes == (1024,) * 10


def test_more_codebooks_sound_closer(tokenizer, speech):
    codes = tokenizer.encode(speech)
    loss = SoundLoss()
    distances = []
    for used in (1, 2, 4, 10):
        again = tokenizer.decode(codes[..., :used], samples=speech.shape[2])
        assert again.shape == speech.shape
        distances.append(float(loss.terms(again[0], speech[0])["mel"]))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < min(0.2, 0.8 * distances[0])


def test_loudness_is_kept(tokenizer, speech):
    for gain in (1.0, 0.1):
        again = tokenizer.decode(tokenizer.encode(gain * speech), samples=speech.shape[2])
        ratio = float(again.square().mean() / (gain * speech).square().mean())
        assert 0.5 < ratio < 2


def test_silence_stays_silent(tokenizer):
    again = tokenizer.decode(tokenizer.encode(torch.zeros(1, 1, 48_000)))
    assert again.abs().max() < 0.01


def test_the_first_version_is_still_there():
    first = Tokenizer.from_pretrained("audio@1")
    assert first.codebook_sizes == (1024,) * 8
    assert first.prior is not None
    assert first.fingerprint.startswith("f41415a9c6f3")
