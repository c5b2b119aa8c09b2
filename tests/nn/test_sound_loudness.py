import itertools
import math

import numpy as np
import pytest
import torch

from vqtok.nn.sound_losses import SoundLoss
from vqtok.nn.sound_loudness import Loudness

RATE = 16_000


def waves(seed=0, samples=4096, level=0.1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, samples, generator=generator) * level


def by_hand(heard, said, rate, bands):
    """The definition, frame by frame and band by band, in numpy's float64."""
    length = 4 * round(0.008 * rate)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    window /= math.sqrt((window**2).sum())
    top = 6 * math.asinh(min(8000, rate / 2) / 600)
    low = 6 * math.asinh(60 / 600)
    edges = [600 * math.sinh((low + (top - low) * i / bands) / 6) for i in range(bands + 1)]
    middles = [600 * math.sinh((low + (top - low) * (i + 0.5) / bands) / 6) for i in range(bands)]
    kilohertz = np.array(middles) / 1000
    quiet = 3.64 * kilohertz**-0.8 - 6.5 * np.exp(-0.6 * (kilohertz - 3.3) ** 2)
    quiet = 10 ** ((quiet + 1e-3 * kilohertz**4) / 10)

    def powers(wave):
        found = []
        for start in range(0, len(wave) - length + 1, length // 2):
            spectrum = np.abs(np.fft.rfft(wave[start : start + length] * window)) ** 2
            row = []
            for below, above in itertools.pairwise(edges):
                share = [
                    max(
                        0.0,
                        min(above, (k + 0.5) * rate / length)
                        - max(below, (k - 0.5) * rate / length),
                    )
                    for k in range(length // 2 + 1)
                ]
                row.append(np.dot(share, spectrum) / sum(share))
            found.append(row)
        return np.array(found)

    def loudness(power):
        return (quiet / 0.5) ** 0.23 * ((0.5 + 0.5 * power / quiet) ** 0.23 - 1)

    heard, said = powers(heard), powers(said)
    gain = 10**7.9 / max(said.mean(), 1e-6) / bands
    total = level = 0.0
    for first, second in zip(heard * gain, said * gain, strict=True):
        a, b = loudness(first), loudness(second)
        rest = np.maximum(np.abs(a - b) - 0.25 * np.minimum(a, b), 0)
        added = np.minimum(((first + 50) / (second + 50)) ** 1.2, 12)
        total += 0.1 * (math.sqrt((rest**2).mean() + 1e-6) - 1e-3) + 0.15 * (rest * added).mean()
        level += (a - b).mean()
    return (total + 0.3 * abs(level)) / len(heard)


def test_it_is_its_definition():
    first, second = waves(1), waves(2)
    second[:, 1000:2000] *= 0.01
    expected = [
        by_hand(a.double().numpy(), b.double().numpy(), RATE, 20)
        for a, b in zip(first, second, strict=True)
    ]
    found = Loudness(RATE, 20)(first, second)
    assert float(found) == pytest.approx(float(np.mean(expected)), rel=1e-4)


def test_equal_sounds_do_not_disturb_nor_does_their_level():
    loudness = Loudness(RATE)
    said, heard = waves(1), waves(1) + waves(2, level=0.05)
    assert float(loudness(said, said)) == 0
    assert float(loudness(heard, said)) > 0.1
    assert float(loudness(heard / 20, said / 20)) == pytest.approx(
        float(loudness(heard, said)), rel=1e-4
    )


@pytest.mark.parametrize("gain", [0.5, 0.7, 1.4, 2.0])
def test_another_level_of_the_output_disturbs(gain):
    """Also where the difference is masked in every band: 3 dB are."""
    loudness = Loudness(RATE)
    for level in (0.1, 0.01):
        said = waves(1, level=level)
        assert float(loudness(gain * said, said)) > 0.3


def test_added_power_is_worse_than_missing_power():
    loudness = Loudness(RATE)
    time = torch.arange(8192) / RATE
    low, high = torch.sin(700 * time)[None] * 0.1, torch.sin(14_000 * time)[None] * 0.1
    assert loudness(low + high, low) > 1.5 * loudness(low, low + high)


def test_gradients_are_finite_where_all_is_silent():
    output = torch.zeros(1, 4096, requires_grad=True)
    Loudness(RATE)(output, torch.zeros(1, 4096)).backward()
    assert output.grad is not None
    assert bool(output.grad.isfinite().all())


def test_it_is_a_weighted_term_of_the_loss():
    first, second = waves(1), waves(2)
    plain, more = SoundLoss(RATE), SoundLoss(RATE, loudness=2.0)
    assert "loudness" not in plain.terms(first, second)
    expected = plain(first, second) + 2 * Loudness(RATE)(first, second)
    torch.testing.assert_close(more(first, second), expected)


def test_it_ranks_degraded_speech_as_pesq_does():
    """Noise of several levels and a narrow band on a sound with pauses and harmonics."""
    pesq = pytest.importorskip("pesq")
    generator = np.random.default_rng(0)
    time = np.arange(3 * RATE) / RATE
    pitch = 2 * np.pi * np.cumsum(140 + 40 * np.sin(2 * np.pi * 0.7 * time)) / RATE
    voice = sum(np.sin(n * pitch) / n for n in range(1, 30))
    envelope = np.clip(np.sin(2 * np.pi * 2.3 * time), 0, 1)
    said = (0.1 * voice * envelope).astype(np.float32)
    noise = generator.standard_normal(len(said))
    heard = [said + level * noise for level in (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)]
    loudness = Loudness(RATE)
    ours = [
        float(loudness(torch.tensor(each)[None].float(), torch.tensor(said)[None]))
        for each in heard
    ]
    theirs = [pesq.pesq(RATE, said, each.astype(np.float32), "wb") for each in heard]
    assert np.argsort(ours).tolist() == np.argsort([-score for score in theirs]).tolist()
