"""Sounds of the report, and pictures of them."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtok.bench.report.pictures import data_uri, png_of_heat

_COLUMNS, _ROWS = 720, 160
_FLOOR = -80.0  # dB below the loudest bin of the original


def flac(sound: NDArray[Any], sample_rate: int) -> str:
    """A sound [n, C] of float32 as 16-bit FLAC, clipped at full scale."""
    import soundfile

    file = io.BytesIO()
    clipped = np.clip(sound[:, :8], -1, 1)
    soundfile.write(file, clipped, sample_rate, format="FLAC", subtype="PCM_16")
    return data_uri("audio/flac", file.getvalue())


def power(sound: NDArray[Any], sample_rate: int) -> NDArray[np.float64]:
    """Spectrogram [160, at most 720]: power, highest frequency first, mean over the channels.

    Hann windows of about 32 ms, a hop that fits the columns, bins averaged to rows.
    """
    window = 1 << max(9, round(math.log2(max(1, sample_rate * 0.032))))
    hop = max(window // 8, math.ceil(len(sound) / _COLUMNS))
    padded = np.pad(sound.astype(np.float64), ((window // 2, window // 2 + hop), (0, 0)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window, axis=0)[::hop]
    frames = frames[: max(1, len(sound) // hop)]
    spectrum = np.fft.rfft(frames * np.hanning(window + 1)[:-1], axis=-1)
    energy = (np.abs(spectrum[..., 1:]) ** 2).mean(1).T  # [window / 2, columns]
    edges = np.linspace(0, len(energy), _ROWS + 1).astype(int)
    rows = np.add.reduceat(energy, edges[:-1], axis=0) / np.diff(edges)[:, None]
    return np.asarray(rows[::-1])


def spectrogram(sound: NDArray[Any], sample_rate: int, loudest: float) -> str:
    """A PNG of :func:`power` in decibels: ``loudest`` is brightest, 80 dB less is darkest."""
    decibels = 10 * np.log10(np.maximum(power(sound, sample_rate), 1e-30) / max(loudest, 1e-20))
    return png_of_heat(1 - decibels / _FLOOR)
