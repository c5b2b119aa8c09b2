from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqtok.media.resampling import Resampler, resample, resampled_length

RATES = [8000, 11025, 16000, 22050, 24000, 44100, 48000, 96000]


def tone(rate: int, seconds: float = 0.5) -> np.ndarray:
    time = np.arange(int(rate * seconds)) / rate
    window = np.sin(np.pi * time / seconds) ** 2
    return np.stack([np.sin(2 * np.pi * 440 * time), np.cos(2 * np.pi * 1000 * time)]).astype(
        np.float32
    ) * window.astype(np.float32)


@pytest.mark.parametrize("source", RATES)
@pytest.mark.parametrize("target", RATES)
def test_a_tone_stays_that_tone_in_place(source: int, target: int) -> None:
    resampled = resample(tone(source), source, target)
    assert resampled.dtype == np.float32
    expected = tone(target, tone(source).shape[1] / source)
    assert np.abs(resampled[:, : expected.shape[1]] - expected).max() < 2e-3


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 3000),
    st.sampled_from(RATES),
    st.sampled_from(RATES),
    st.lists(st.integers(0, 3000), max_size=8),
)
def test_lengths_are_exact_however_it_is_cut(samples, source, target, cuts) -> None:
    noise = np.random.default_rng(samples).standard_normal((2, samples)).astype(np.float32)
    whole = resample(noise, source, target)
    assert whole.shape == (2, -(-samples * target // source))
    resampler = Resampler(source, target, 2)
    pieces = [resampler.push(piece) for piece in np.split(noise, sorted(cuts), axis=1)]
    np.testing.assert_array_equal(np.concatenate([*pieces, resampler.finish()], axis=1), whole)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 5000), st.sampled_from(RATES), st.sampled_from(RATES))
def test_there_and_back_has_the_length(samples: int, source: int, target: int) -> None:
    noise = np.random.default_rng(samples).standard_normal((1, samples)).astype(np.float32)
    there = resample(noise, source, target)
    back = Resampler(target, source, 1)
    result = np.concatenate([back.push(there), back.finish(samples)], axis=1)
    assert result.shape == noise.shape


def test_equal_rates_change_nothing() -> None:
    noise = np.random.default_rng(0).standard_normal((3, 999)).astype(np.float32)
    np.testing.assert_array_equal(resample(noise, 24000, 24000), noise)


def test_a_longer_end_is_silence() -> None:
    resampler = Resampler(8000, 16000, 1)
    start = resampler.push(np.ones((1, 1000), np.float32))
    rest = resampler.finish(5000)
    assert start.shape[1] + rest.shape[1] == 5000
    assert np.abs(rest[:, -1000:]).max() < 1e-6


def test_wrong_rates() -> None:
    with pytest.raises(ValueError, match="sample rates must be positive"):
        Resampler(0, 24000, 1)
    assert resampled_length(0, 44100, 24000) == 0
