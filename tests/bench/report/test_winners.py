"""Who wins, against brute force and the formulas written out."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqtok.bench.report.winners import (
    at_rate,
    contenders,
    frontier,
    rates_to_ask,
    tokenizer_rates,
    verdict,
)
from vqtok.bench.results import Codec, Metric, Point, Results, Sample

UP = Metric(name="score", unit="", higher_is_better=True, definition="", samples=4)
DOWN = replace(UP, higher_is_better=False)


def codec(name, points, kind="baseline"):
    """From (rate, values) pairs."""
    made = [
        Point(
            setting=str(rate),
            rate=rate,
            rates=(rate,) * len(values),
            bytes=(1,) * len(values),
            quality={"score": tuple(values)},
            mean={"score": float(np.nanmean(np.array(values, dtype=float)))},
            mean_rate={"score": rate},
            deviation={"score": 0.0},
        )
        for rate, values in points
    ]
    return Codec(name=name, kind=kind, description="", points=tuple(made))


def results(*codecs, metric=UP):
    count = max(len(point.bytes) for each in codecs for point in each.points)
    samples = tuple(Sample(name=str(i), original_bytes=1, height=8, width=8) for i in range(count))
    return Results(
        modality="image",
        data="",
        anchor=None,
        quick=False,
        seed=0,
        machine={},
        versions={},
        samples=samples,
        common=tuple(range(count)),
        metrics=(metric,),
        codecs=codecs,
    )


POINTS = st.lists(
    st.tuples(st.floats(0.01, 10), st.lists(st.floats(-100, 100), min_size=4, max_size=4)),
    min_size=1,
    max_size=8,
    unique_by=lambda pair: pair[0],
)


@given(POINTS, st.sampled_from([UP, DOWN]))
def test_the_frontier_is_what_nothing_beats(points, metric):
    found = frontier(results(codec("a", points), metric=metric), codec("a", points), metric)
    sign = 1 if metric.higher_is_better else -1
    means = {rate: sign * float(np.mean(values)) for rate, values in points}
    expected = sorted(
        rate
        for rate in means
        if not any(other < rate and means[other] >= means[rate] for other in means)
    )
    assert [rate for rate, _ in found] == expected


@given(POINTS, st.floats(0.005, 12))
def test_between_settings_it_is_a_straight_line(points, rate):
    curve = [(r, np.array(v)) for r, v in sorted(points, key=lambda pair: pair[0])]
    values = at_rate(curve, rate)
    low, high = curve[0][0], curve[-1][0]
    if rate < low * 0.99 or rate > high * 1.01:
        assert values is None
        return
    rates = [r for r, _ in curve]
    expected = [np.interp(rate, rates, [v[i] for _, v in curve]) for i in range(4)]
    np.testing.assert_allclose(values, expected, atol=1e-9)


def test_a_clear_win_and_its_margin():
    made = results(
        codec("a", [(1.0, [10, 20, 30, 40]), (3.0, [20, 30, 40, 50])]),
        codec("b", [(2.0, [10, 19.5, 31, 39.5])]),
        codec("far", [(9.0, [99, 99, 99, 99])]),
        codec("published", [(2.0, [99, 99, 99, 99])], kind="external"),
    )
    found = verdict(made, UP, 2.0)
    assert (found.best.codec, found.best.mean) == ("a", 30.0)
    assert (found.next.codec, found.next.mean) == ("b", 25.0)
    assert found.tied == ()
    falling = results(
        codec("a", [(1.0, [10, 20, 30, 40]), (3.0, [8, 18, 28, 38])]),
        codec("b", [(2.0, [10, 19, 31, 41])]),
        metric=DOWN,
    )
    lowest = verdict(falling, DOWN, 2.0)
    assert (lowest.best.codec, lowest.best.mean, lowest.next.codec) == ("a", 24.0, "b")
    assert verdict(made, UP, 5.0) is None
    assert not verdict(made, UP, 9.0).contested


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12), st.floats(0, 2))
def test_close_is_two_standard_errors_of_the_differences(noise, gap):
    """However much the samples differ among themselves."""
    base = np.linspace(-50, 50, len(noise))
    one, other = base + gap + np.array(noise), base
    found = verdict(results(codec("one", [(1.0, one)]), codec("other", [(1.0, other)])), UP, 1.0)
    differences = one - other
    error = math.sqrt(differences.var(ddof=1) / len(noise))
    distance = abs(differences.mean()) - 2 * error
    if abs(distance) > 1e-9:
        assert bool(found.tied) == (distance < 0)


def test_samples_without_a_value_do_not_count():
    made = results(codec("a", [(1.0, [1, None, 3])]), codec("b", [(1.0, [0, None, 2.5])]))
    found = verdict(made, UP, 1.0)
    assert (found.best.codec, found.best.mean) == ("a", 2.0)


def test_of_packings_the_smallest_is_ranked():
    settings = [("plain", 0.4), ("entropy", 0.2), ("bits", 0.3)]
    packings = [
        replace(codec(f"photo {name}", [(rate, [5, 6])], kind="tokenizer"), fingerprint="f")
        for name, rate in settings
    ]
    jpeg = codec("jpeg", [(0.1, [1, 2]), (0.5, [3, 4])])
    published = codec("vtm", [(0.2, [9, 9])], kind="external")
    made = results(*packings, jpeg, published)
    assert [each.name for each in contenders(made)] == ["photo entropy", "jpeg"]
    assert tokenizer_rates(made) == [0.2]
    found = verdict(made, UP, 0.2)
    assert (found.best.codec, found.next.codec) == ("photo entropy", "jpeg")


def test_metrics_of_the_whole_set_are_ranked_by_their_means():
    one, other = codec("one", [(1.0, [3.0, 3.0])]), codec("other", [(1.0, [4.0, 4.0])])
    whole = [
        replace(
            each, points=tuple(replace(p, quality={"score": (None, None)}) for p in each.points)
        )
        for each in (one, other)
    ]
    found = verdict(results(*whole, metric=DOWN), DOWN, 1.0)
    assert (found.best.codec, found.best.mean, found.next.codec) == ("one", 3.0, "other")


def test_rates_to_ask_at():
    baseline = codec("jpeg", [(0.2, [1, 1]), (2.0, [5, 5])])
    other = codec("webp", [(0.1, [1, 1]), (3.0, [5, 5])])
    tokenizer = codec(
        "photo",
        [(0.06, [1, 1]), (0.064, [1.5, 1]), (0.12, [2, 2]), (0.2, [2, 2])],
        kind="tokenizer",
    )
    made = results(tokenizer, baseline, other)
    assert tokenizer_rates(made) == [0.06, 0.12]  # 0.2 brings nothing, 0.064 is as good as 0.06
    rates = rates_to_ask(made)
    assert rates == sorted(rates)
    assert len(rates) == 6
    assert {0.06, 0.12} < set(rates)
    spans = [(0.06, 0.2), (0.2, 2.0), (0.1, 3.0)]
    for rate in set(rates) - {0.06, 0.12}:
        assert sum(low <= rate <= high for low, high in spans) >= 2
    alone = results(baseline)
    assert rates_to_ask(alone) == [0.2, 2.0]


def test_many_tokenizer_rates_are_thinned():
    points = [(0.1 * 1.3**i, [i, i]) for i in range(12)]
    made = results(codec("photo", points, kind="tokenizer"))
    rates = rates_to_ask(made)
    assert len(rates) == 6
    assert rates[0] == points[0][0]
    assert rates[-1] == pytest.approx(points[-1][0])
