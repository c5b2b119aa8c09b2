"""How the report writes numbers."""

from __future__ import annotations

import math

from vqtok.bench.results import Metric, Results

MINUS = "\N{MINUS SIGN}"


def fixed(value: float, decimals: int, *, sign: bool = False) -> str:
    """With so many decimals, a thousands separator and a real minus sign."""
    text = f"{value:{'+' if sign else ''},.{decimals}f}"
    if not float(text.replace(",", "")):
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def rounded(value: float) -> str:
    """With three significant digits, never in powers of ten."""
    value = float(f"{value:.3g}")
    decimals = 2 - math.floor(math.log10(abs(value))) if value else 0
    return fixed(value, min(6, max(0, decimals)))


def short(value: float) -> str:
    """With at most three significant digits: 0.3, 1.25, 24."""
    text = rounded(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def metric_decimals(results: Results) -> dict[str, int]:
    """Decimals per metric: 2 where values reach 10, 3 where they reach 1, else 4."""
    return {metric.name: _decimals(results, metric) for metric in results.metrics}


def _decimals(results: Results, metric: Metric) -> int:
    codecs = (codec.curve(metric.name) for codec in results.codecs)
    largest = max((abs(point.mean[metric.name]) for curve in codecs for point in curve), default=0)
    return 2 if largest >= 10 else 3 if largest > 1 else 4


def size(count: float) -> str:
    """Bytes, for people: 812 B, 45.2 kB, 1.21 GB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{rounded(count / factor)} {unit}"
    return f"{count:.0f} B"


def plural(count: int, noun: str) -> str:
    """1 image, 24 images."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
