"""Bjontegaard deltas: those of the package, and none where there is nothing in common."""

from __future__ import annotations

import bjontegaard
import pytest

from vqtok.bench.delta import bd_quality, bd_rate, delta
from vqtok.bench.results import Codec, Metric, Point

# The package's own example: libx265 at two presets.
ANCHOR = ([1358.24, 2486.44, 4593.60, 9487.76], [34.851, 36.845, 38.615, 40.037])
TEST = ([1356.24, 2451.52, 4469.00, 9787.80], [34.987, 36.970, 38.651, 40.121])

PSNR = Metric(name="psnr", unit="dB", higher_is_better=True, definition="", samples=1)
DISTANCE = Metric(name="psnr", unit="", higher_is_better=False, definition="", samples=1)


def curve(name: str, rates: list[float], qualities: list[float]) -> Codec:
    points = [
        Point(setting=str(i), rate=rate, mean={"psnr": quality})
        for i, (rate, quality) in enumerate(zip(rates, qualities, strict=True))
    ]
    return Codec(name=name, kind="baseline", description="", points=tuple(points))


def test_the_packages_own_example() -> None:
    expected = bjontegaard.bd_rate(*ANCHOR, *TEST, method="akima")
    assert bd_rate(ANCHOR, TEST) == pytest.approx(expected, abs=1e-12)
    gain = bjontegaard.bd_psnr(*ANCHOR, *TEST, method="akima")
    assert bd_quality(ANCHOR, TEST) == pytest.approx(gain, abs=1e-12)
    found = delta(curve("anchor", *ANCHOR), curve("test", *TEST), PSNR)
    assert (found.rate_percent, found.quality) == pytest.approx((expected, gain), abs=1e-12)
    assert found.note is None
    # Half the rate everywhere, whatever the interpolation.
    half = curve("half", [rate / 2 for rate in ANCHOR[0]], ANCHOR[1])
    assert delta(curve("anchor", *ANCHOR), half, PSNR).rate_percent == pytest.approx(-50)


def test_a_codec_against_itself_is_zero() -> None:
    found = delta(curve("a", *ANCHOR), curve("a", *ANCHOR), PSNR)
    assert (found.rate_percent, found.quality, found.note) == (0.0, 0.0, None)
    one = curve("a", [1.0], [30.0])
    found = delta(one, one, PSNR)
    assert (found.rate_percent, found.quality) == (0.0, 0.0)


def test_metrics_that_are_better_when_lower() -> None:
    errors = [1 / quality for quality in ANCHOR[1]]
    anchor = curve("anchor", ANCHOR[0], errors)
    better = curve("better", ANCHOR[0], [error * 0.99 for error in errors])
    found = delta(anchor, better, DISTANCE)
    assert found.rate_percent is not None
    assert found.quality is not None
    assert found.rate_percent < 0
    assert found.quality == pytest.approx(-0.01 * sum(errors) / 4, rel=0.2)


def test_few_points_are_interpolated_at_equal_quality() -> None:
    found = delta(curve("anchor", [1.0, 4.0], [30.0, 40.0]), curve("test", [1.0], [35.0]), PSNR)
    assert found.rate_percent == pytest.approx(-50)  # the anchor needs 2 for 35
    assert found.quality == pytest.approx(5)
    assert found.note == "fewer than 4 points: mean over points inside the anchor's curve"


@pytest.mark.parametrize(
    ("rates", "qualities", "note"),
    [
        ([1.0], [60.0], "no quality in common; no rate in common; nothing is extrapolated"),
        ([1e5, 2e5, 3e5, 4e5], [50.0, 51.0, 52.0, 53.0], "no qualities in common: nothing is"),
    ],
)
def test_nothing_is_extrapolated(rates, qualities, note) -> None:
    found = delta(curve("anchor", *ANCHOR), curve("test", rates, qualities), PSNR)
    assert found.rate_percent is None
    assert found.quality is None
    assert note in found.note


def test_little_in_common_and_dominated_points_are_said() -> None:
    shifted = [quality + 4.5 for quality in ANCHOR[1]]
    found = delta(curve("anchor", *ANCHOR), curve("test", TEST[0], shifted), PSNR)
    assert found.note == "only 7% of the qualities in common"
    rates, qualities = [*ANCHOR[0], 5000.0], [*ANCHOR[1], 36.0]
    found = delta(curve("anchor", *ANCHOR), curve("test", rates, qualities), PSNR)
    assert (found.rate_percent, found.note) == (0.0, "1 dominated point(s) left out")
