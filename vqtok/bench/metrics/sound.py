"""Distances between sounds that need no model of hearing."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vqtok.bench.metrics.base import Array, Metric
from vqtok.nn.sound_losses import SoundLoss

WINDOWS = (256, 512, 1024, 2048)
"""In samples at 24 kHz; as long in seconds at any other rate."""

QUIETEST = 1e-8
"""Mean power below which an original counts as silent."""


class _SoundDistance(Metric):
    """One term of SoundLoss, channel by channel, at the rate of the sound."""

    higher_is_better = False
    _term: str

    def __init__(self) -> None:
        self._losses: dict[int, SoundLoss] = {}

    def __call__(self, original: Array, decoded: Array, sample_rate: int) -> float:
        if sample_rate not in self._losses:
            windows = [max(8, round(length * sample_rate / 96_000) * 4) for length in WINDOWS]
            self._losses[sample_rate] = SoundLoss(sample_rate, windows)
        first, second = (torch.from_numpy(np.ascontiguousarray(x.T)) for x in (decoded, original))
        with torch.no_grad():
            return float(self._losses[sample_rate].terms(first, second)[self._term])


class MelDistance(_SoundDistance):
    """Difference of mel spectra."""

    name = "mel"
    definition = (
        "mean absolute difference of log10(mel magnitudes + 0.001) over four resolutions (Hann "
        "windows of 10.7, 21.3, 42.7 and 85.3 ms, hops half of them, a band per 16 samples of the "
        "window at 24 kHz), all channels, at the original's rate"
    )
    _term = "mel"


class SpectrumDistance(_SoundDistance):
    """Difference of complex spectra."""

    name = "spectrum"
    definition = (
        "mean absolute difference of the real and imaginary parts of spectra with magnitudes "
        "raised to 0.5, over the resolutions of mel, all channels, at the original's rate"
    )
    _term = "spectrum"


class STFTDistance(Metric):
    """Difference of magnitudes, as papers report it: see :func:`stft_distance`."""

    name = "stft"
    higher_is_better = False
    definition = (
        "Kumar et al. 2023 (DAC): mean absolute difference of log10 of squared magnitudes, those "
        "below 1e-5 raised to it, plus that of magnitudes, summed over Hann windows of 2048 and "
        "512 samples with hops of a quarter, all channels, at the original's rate"
    )

    def __call__(self, original: Array, decoded: Array, sample_rate: int = 0) -> float:
        first, second = (torch.from_numpy(np.ascontiguousarray(x.T)) for x in (decoded, original))
        return float(stft_distance(first, second))


def stft_distance(output: Tensor, target: Tensor) -> Tensor:
    """How different the magnitudes of two sounds' spectra are, whatever their phases.

    The "STFT distance" of DAC and those that followed it (Kumar et al., 2023, arXiv:2306.06546;
    there at 44.1 kHz). For windows of 2048 and of 512 samples: the mean over channels, frames and
    bins of |log10(max(a, 1e-5)^2) - log10(max(b, 1e-5)^2)| + |a - b|, with a and b the
    magnitudes; the two are added. Windows are of Hann (periodic, not normalized), hops a quarter of
    them, frames centred, ends mirrored.

    Args:
        output, target: float [C, n], samples of full scale 1. Silence follows those shorter than
            2048 samples.

    Returns:
        A scalar of at least 0. It depends on the sample rate: compare at the same rate only.
    """
    if output.shape != target.shape:
        raise ValueError(f"sounds of shapes {tuple(output.shape)} and {tuple(target.shape)}")
    total = torch.zeros((), dtype=torch.float64)
    for length in (2048, 512):
        a, b = (_magnitudes(sound, length) for sound in (output, target))
        levels = 2 * (a.clamp_min(1e-5).log10() - b.clamp_min(1e-5).log10())
        total += levels.abs().mean() + (a - b).abs().mean()
    return total


def _magnitudes(sound: Tensor, length: int) -> Tensor:
    """float64 [C, bins, frames]"""
    sound = sound.double()
    sound = torch.nn.functional.pad(sound, (0, max(0, 2048 - sound.shape[-1])))
    window = torch.hann_window(length, dtype=torch.float64, device=sound.device)
    return torch.stft(sound, length, length // 4, window=window, return_complex=True).abs()


class SISDR(Metric):
    """Scale-invariant signal-to-distortion ratio (Le Roux et al., 2019, arXiv:1811.02508)."""

    name = "si_sdr"
    unit = "dB"
    definition = (
        "Le Roux et al. 2019, all channels as one signal, means not removed; between -100 and 100 "
        "dB, no value for silent originals"
    )

    def __call__(self, original: Array, decoded: Array, sample_rate: int = 0) -> float | None:
        if is_silent(original):
            return None
        target, heard = (x.astype(np.float64).reshape(-1) for x in (original, decoded))
        target = target * (heard @ target) / (target @ target)
        signal, noise = target @ target, np.square(heard - target).sum()
        if signal <= 1e-10 * noise:
            return -100.0
        return 100.0 if noise <= 1e-10 * signal else float(10 * math.log10(signal / noise))


def is_silent(sound: Array) -> bool:
    """Whether float [n, C] holds next to nothing: -80 dB of full scale or less."""
    return float(np.square(sound, dtype=np.float64).mean()) < QUIETEST
