"""SSIMULACRA 2, by the package ssimulacra2."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from vqtok.bench.metrics.base import Array, Metric
from vqtok.bench.optional import need

SMALLEST = 8


class SSIMULACRA2(Metric):
    """The perceptual metric of the JPEG XL project."""

    name = "ssimulacra2"
    definition = (
        "SSIMULACRA 2.1 as the Python package ssimulacra2 computes it; 100 for identical images, "
        "90 is hardly told apart, 70 high and 50 medium quality; needs 8 pixels a side"
    )
    package = ("ssimulacra2>=0.3", "ssimulacra2")

    def __init__(self) -> None:
        self._of: Any = need(*self.package, f"metric {self.name}").compute_ssimulacra2

    def __call__(self, original: Array, decoded: Array, sample_rate: int = 0) -> float | None:
        if min(original.shape[:2]) < SMALLEST:
            return None
        return float(self._of(_file(original), _file(decoded)))


def _file(pixels: Array) -> io.BytesIO:
    """The package takes files only."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "BMP")
    file.seek(0)
    return file
