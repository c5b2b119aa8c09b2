"""Measures that model hearing: PESQ, STOI and ViSQOL, by their packages."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np

from vqtok.bench.metrics.base import Array, Metric
from vqtok.bench.metrics.sound import is_silent
from vqtok.bench.optional import need
from vqtok.media.resampling import resample

SPEECH_RATE = 16_000


class PESQ(Metric):
    """Perceptual evaluation of speech quality, wide band (ITU-T P.862.2)."""

    name = "pesq"
    unit = "MOS"
    definition = (
        "PESQ-wb (ITU-T P.862.2) of the mean of the channels at 16 kHz; 1.04 to 4.64; means "
        "something for speech only; no value where the original has no utterance or less than a "
        "quarter of a second; 1 where a decoded one has none"
    )
    package = ("pesq>=0.0.4", "pesq")

    def __init__(self) -> None:
        self._package: Any = need(*self.package, f"metric {self.name}")

    def __call__(self, original: Array, decoded: Array, sample_rate: int) -> float | None:
        said, heard = (mixed(sound, sample_rate) for sound in (original, decoded))
        if is_silent(original) or len(said) < SPEECH_RATE / 4:
            return None
        try:
            return float(self._package.pesq(SPEECH_RATE, said, heard, "wb"))
        except self._package.NoUtterancesError:
            return None if self._has_none(said) else 1.0

    def _has_none(self, said: Array) -> bool:
        try:
            self._package.pesq(SPEECH_RATE, said, said, "wb")
        except self._package.NoUtterancesError:
            return True
        return False


class STOI(Metric):
    """Short-time objective intelligibility (Taal et al., 2011)."""

    name = "stoi"
    definition = (
        "Taal et al. 2011, not extended, of the mean of the channels; at most 1; means something "
        "for speech only; no value where the original has too few frames that are not silent"
    )
    package = ("pystoi>=0.4", "pystoi")

    def __init__(self) -> None:
        self._of: Any = need(*self.package, f"metric {self.name}").stoi

    def __call__(self, original: Array, decoded: Array, sample_rate: int) -> float | None:
        said, heard = (mixed(sound, sample_rate) for sound in (original, decoded))
        if is_silent(original) or len(said) < SPEECH_RATE / 4:
            return None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = float(self._of(said, heard, SPEECH_RATE))
        # It warns and gives 1e-5 where too few frames of the original are louder than silence.
        return None if caught or not np.isfinite(value) else value


class ViSQOL(Metric):
    """Virtual speech quality objective listener (Chinen et al., 2020), its mode for all sounds."""

    name = "visqol"
    unit = "MOS"
    definition = (
        "ViSQOL v3 (package visqol-python) in audio mode, at 48 kHz, of the mean of the channels; "
        "1 to 4.7; no value for silent originals or those shorter than a second"
    )
    package = ("visqol-python>=3.8", "visqol")

    def __init__(self) -> None:
        package: Any = need(*self.package, f"metric {self.name}")
        logging.getLogger("visqol").setLevel(logging.ERROR)
        self._api = package.VisqolApi()
        self._api.create(mode="audio")

    def __call__(self, original: Array, decoded: Array, sample_rate: int) -> float | None:
        if is_silent(original) or len(original) < sample_rate:
            return None
        pair = (
            mixed(sound, sample_rate, 48_000).astype(np.float64) for sound in (original, decoded)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return float(self._api.measure_from_arrays(*pair, 48_000).moslqo)


def mixed(sound: Array, sample_rate: int, wanted: int = SPEECH_RATE) -> Array:
    """float32 [n]: the mean of the channels of [n, C], resampled."""
    mono = np.ascontiguousarray(sound.mean(axis=1, dtype=np.float32)[None])
    found: Array = resample(mono, sample_rate, wanted)[0]
    return found
