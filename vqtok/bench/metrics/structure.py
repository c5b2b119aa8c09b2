"""SSIM and MS-SSIM, by pytorch-msssim."""

from __future__ import annotations

from typing import Any

import torch

from vqtok.bench.metrics.base import Array, Metric
from vqtok.bench.optional import need

WINDOW = 11
SMALLEST = (WINDOW - 1) * 2**4 + 1
"""Fewest pixels of a side that MS-SSIM with its five scales is defined for."""


class SSIM(Metric):
    """Structural similarity (Wang et al., 2004)."""

    name = "ssim"
    definition = (
        "Wang et al. 2004: Gaussian window of 11 pixels and sigma 1.5, inside the image only, "
        "K = 0.01, 0.03; mean of the R, G and B channels; needs 11 pixels a side"
    )
    package = ("pytorch-msssim>=1.0", "pytorch_msssim")

    def __init__(self) -> None:
        self._of: Any = need(*self.package, f"metric {self.name}").ssim

    def __call__(self, original: Array, decoded: Array, sample_rate: int = 0) -> float | None:
        if min(original.shape[:2]) < WINDOW:
            return None
        return float(self._of(_batch(original), _batch(decoded), data_range=255))


class MultiScaleSSIM(Metric):
    """Multi-scale structural similarity (Wang et al., 2003)."""

    name = "ms_ssim"
    definition = (
        "Wang et al. 2003: SSIM's terms over five scales with the paper's weights, mean of the R, "
        "G and B channels, as published for learned codecs; needs 161 pixels a side"
    )
    package = ("pytorch-msssim>=1.0", "pytorch_msssim")

    def __init__(self) -> None:
        self._of: Any = need(*self.package, f"metric {self.name}").ms_ssim

    def __call__(self, original: Array, decoded: Array, sample_rate: int = 0) -> float | None:
        if min(original.shape[:2]) < SMALLEST:
            return None
        return float(self._of(_batch(original), _batch(decoded), data_range=255))


def _batch(pixels: Array) -> torch.Tensor:
    """float32, as published values are computed: within 1e-5 of float64."""
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
