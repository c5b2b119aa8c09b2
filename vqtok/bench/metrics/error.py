"""Squared errors of pixels."""

from __future__ import annotations

import math

import numpy as np

from vqtok.bench.metrics.base import Array, Metric

IDENTICAL = 100.0
"""PSNR of identical images, and the most there is."""


class PSNR(Metric):
    """Peak signal-to-noise ratio over all pixels and the three channels."""

    name = "psnr"
    unit = "dB"
    definition = (
        "10 log10(255^2 / MSE), MSE over all pixels and channels of 8-bit sRGB; "
        "100 dB for identical images"
    )

    def __call__(self, original: Array, decoded: Array, sample_rate: int = 0) -> float:
        return _psnr(original.astype(np.float64), decoded.astype(np.float64))


class LumaPSNR(Metric):
    """PSNR of luma."""

    name = "psnr_y"
    unit = "dB"
    definition = (
        "PSNR of luma Y = 0.299 R + 0.587 G + 0.114 B (BT.601, full range, not rounded); "
        "100 dB for identical images"
    )

    def __call__(self, original: Array, decoded: Array, sample_rate: int = 0) -> float:
        return _psnr(luma(original), luma(decoded))


def luma(pixels: Array) -> Array:
    """float64 [H, W] in 0..255 of uint8 [H, W, 3], by BT.601."""
    weighted: Array = pixels.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    return weighted


def _psnr(original: Array, decoded: Array) -> float:
    error = float(np.mean(np.square(original - decoded)))
    return min(IDENTICAL, 10 * math.log10(255**2 / error)) if error > 0 else IDENTICAL
