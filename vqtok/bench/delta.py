"""Bjontegaard deltas, without extrapolation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from vqtok.bench.optional import missing, need
from vqtok.bench.results import BD, Codec, Metric

PACKAGE = ("bjontegaard>=1.3", "bjontegaard")
METHOD = "akima"
ENOUGH = 4
"""Points that a curve needs for a Bjontegaard delta."""

Line = tuple[list[float], list[float]]
"""Rates, and the qualities there."""


def bjontegaard_missing() -> str | None:
    """How to install what the deltas need, None where it is there."""
    return missing(*PACKAGE)


def bd_rate(anchor: Line, test: Line) -> float:
    """Mean difference of rates in percent at equal quality, over the qualities in common.

    Akima interpolation, by the package bjontegaard. Lines have rising rates and qualities.
    """
    return _by_package("bd_rate", anchor, test)


def bd_quality(anchor: Line, test: Line) -> float:
    """Mean difference of qualities at equal rate, over the logarithms of the rates in common."""
    return _by_package("bd_psnr", anchor, test)


def delta(anchor: Codec, codec: Codec, metric: Metric) -> BD:
    """How ``codec`` compares with ``anchor`` by ``metric``.

    Points that cost more than another one without being better are left out. Curves of four points
    and more get Bjontegaard deltas. A shorter one is compared point by point with the anchor's
    curve, interpolated piecewise in the logarithm of the rate, and the mean is taken. Nothing is
    extrapolated: where there is nothing in common there is no value.
    """
    sign = 1 if metric.higher_is_better else -1
    first, _ = frontier(anchor, metric.name, sign)
    second, dropped = frontier(codec, metric.name, sign)
    notes = [f"{dropped} dominated point(s) left out"] if dropped else []
    rate = quality = None
    if not first[0] or not second[0]:
        notes.append("no points")
    elif min(len(first[0]), len(second[0])) >= ENOUGH:
        rate, more = _guarded(bd_rate, first, second, "qualities")
        quality, others = _guarded(bd_quality, first, second, "rates")
        notes += more + others
    else:
        notes.append(f"fewer than {ENOUGH} points: mean over points inside the anchor's curve")
        rate, quality = iso_quality(first, second), iso_rate(first, second)
        if rate is None:
            notes.append("no quality in common")
        if quality is None:
            notes.append("no rate in common")
        if rate is None or quality is None:
            notes.append("nothing is extrapolated")
    return BD(
        codec=codec.name,
        anchor=anchor.name,
        metric=metric.name,
        rate_percent=rate,
        quality=None if quality is None else sign * quality + 0.0,  # no -0.0
        note="; ".join(notes) or None,
    )


def frontier(codec: Codec, metric: str, sign: int) -> tuple[Line, int]:
    """The codec's points that no cheaper one matches, by rate, and how many others there are.

    Qualities are times ``sign``, so that they rise with the rate.
    """
    points = sorted(
        (point.rate_of(metric), -sign * point.mean[metric]) for point in codec.curve(metric)
    )
    rates: list[float] = []
    qualities: list[float] = []
    for rate, negative in points:
        if not qualities or -negative > qualities[-1]:
            rates.append(rate)
            qualities.append(-negative)
    return (rates, qualities), len(points) - len(rates)


def iso_quality(anchor: Line, test: Line) -> float | None:
    """Mean difference of rates in percent at the qualities of ``test``'s points."""
    logs = np.log(anchor[0])
    ratios = [
        np.log(rate) - np.interp(quality, anchor[1], logs)
        for rate, quality in zip(*test, strict=True)
        if anchor[1][0] <= quality <= anchor[1][-1]
    ]
    return float(np.expm1(np.mean(ratios)) * 100) if ratios else None


def iso_rate(anchor: Line, test: Line) -> float | None:
    """Mean difference of qualities at the rates of ``test``'s points."""
    logs = np.log(anchor[0])
    gains = [
        quality - np.interp(np.log(rate), logs, anchor[1])
        for rate, quality in zip(*test, strict=True)
        if anchor[0][0] <= rate <= anchor[0][-1]
    ]
    return float(np.mean(gains)) if gains else None


def _guarded(function: Any, anchor: Line, test: Line, what: str) -> tuple[float | None, list[str]]:
    index = 1 if what == "qualities" else 0
    spans = [(line[index][0], line[index][-1]) for line in (anchor, test)]
    if what == "rates":
        spans = [(float(np.log(low)), float(np.log(high))) for low, high in spans]
    low, high = max(span[0] for span in spans), min(span[1] for span in spans)
    if low >= high:
        return None, [f"no {what} in common: nothing is extrapolated"]
    whole = max(span[1] for span in spans) - min(span[0] for span in spans)
    share = (high - low) / whole
    note = [f"only {share:.0%} of the {what} in common"] if share < 0.5 else []
    return float(function(anchor, test)), note


def _by_package(name: str, anchor: Line, test: Line) -> float:
    package = need(*PACKAGE, "the Bjontegaard deltas")
    columns: list[Sequence[float]] = [*anchor, *test]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of little overlap, which our notes say
        value = getattr(package, name)(*columns, method=METHOD, require_matching_points=False)
    return float(value)
