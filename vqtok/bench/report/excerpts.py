"""Pieces of samples that a page can hold, the same of the original and of every codec."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtok.bench.report.numbers import rounded
from vqtok.bench.report.pictures import lossless
from vqtok.bench.report.sounds import flac, power, spectrogram
from vqtok.bench.results import Sample

_SIDE = 768
_SECONDS = 10.0


class Picture:
    """The middle of an image, at most 768 pixels wide and high, times ``cut``.

    ``facts`` and ``note`` are what the page says of it.
    """

    def __init__(self, sample: Sample, original: NDArray[Any], cut: float) -> None:
        height, width = original.shape[:2]
        rows, columns = (max(1, int(min(length, _SIDE) * cut)) for length in (height, width))
        self.top, self.left = (height - rows) // 2, (width - columns) // 2
        self.facts = {"width": columns, "height": rows}
        self.note = None
        if (rows, columns) != (height, width):
            self.note = f"middle {columns} × {rows} of {width} × {height} pixels"  # noqa: RUF001

    def media(self, image: NDArray[Any]) -> dict[str, str]:
        """The same piece of an image of the sample."""
        bottom, right = self.top + self.facts["height"], self.left + self.facts["width"]
        return {
            "image": lossless(np.ascontiguousarray(image[self.top : bottom, self.left : right]))
        }


class Sound:
    """The middle ten seconds of a sound, times ``cut``."""

    def __init__(self, sample: Sample, original: NDArray[Any], cut: float) -> None:
        self.rate = sample.sample_rate or 1
        length = int(min(len(original), _SECONDS * self.rate) * cut)
        self.start = (len(original) - length) // 2
        self.stop = self.start + length
        self.loudest = float(power(original[self.start : self.stop], self.rate).max())
        self.facts = {"seconds": length / self.rate, "sample_rate": self.rate}
        self.note = None
        if length < len(original):
            first = rounded(self.start / self.rate)
            self.note = (
                f"{rounded(length / self.rate)} s from second {first} of "
                f"{rounded(len(original) / self.rate)} s"
            )

    def media(self, sound: NDArray[Any]) -> dict[str, str]:
        """The same piece of a sound of the sample, and its spectrogram."""
        piece = sound[self.start : self.stop]
        return {
            "image": spectrogram(piece, self.rate, self.loudest),
            "sound": flac(piece, self.rate),
        }
