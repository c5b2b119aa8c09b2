"""Which codec is best at which rate, and which rates to ask at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vqtok.bench.results import Codec, Metric, Results

COLUMNS = 6
LADDER = [step * 10.0**power for power in range(-3, 4) for step in (1, 1.5, 2, 3, 5, 7)]
SLACK = 0.01
"""A curve is taken to reach a rate this much (relative) beyond its ends."""

Curve = list[tuple[float, NDArray[np.float64]]]


@dataclass(frozen=True)
class Standing:
    """A codec at a rate: its mean quality there, and the value of each common sample."""

    codec: str
    mean: float
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """The best codec by a metric at a rate, those that cannot be told from it, and the next one.

    ``tied``: their mean difference from the best, sample by sample, is within two standard errors.
    ``next``: the best of the others, None if there is none.
    """

    best: Standing
    tied: tuple[Standing, ...]
    next: Standing | None

    @property
    def contested(self) -> bool:
        """Whether there is another codec at the rate."""
        return bool(self.tied) or self.next is not None


def contenders(results: Results) -> list[Codec]:
    """The codecs that are ranked: those that were run here, of a tokenizer's packings the smallest.

    Published curves are of other samples, perhaps. Packings of one tokenizer share a fingerprint.
    """
    smallest: dict[str, Codec] = {}
    for codec in results.codecs:
        if codec.fingerprint is not None and codec.points:
            before = smallest.setdefault(codec.fingerprint, codec)
            if _total_rate(codec) < _total_rate(before):
                smallest[codec.fingerprint] = codec
    return [
        codec
        for codec in results.codecs
        if codec.kind != "external"
        and (codec.fingerprint is None or smallest.get(codec.fingerprint) is codec)
    ]


def _total_rate(codec: Codec) -> float:
    return sum(point.rate for point in codec.points)


def frontier(results: Results, codec: Codec, metric: Metric) -> Curve:
    """(rate, value per common sample [n], NaN where there is none) of the settings worth using, by
    rate.

    A setting is left out when another one is at least as good by the mean and takes no more bits.
    A metric of the whole set, which no sample has a value of, has its mean for each.
    """
    sign = 1 if metric.higher_is_better else -1
    points = codec.curve(metric.name)
    points.sort(key=lambda point: (point.rate_of(metric.name), -sign * point.mean[metric.name]))
    curve: Curve = []
    best = -math.inf
    for point in points:
        if sign * point.mean[metric.name] > best:
            best = sign * point.mean[metric.name]
            given = [point.quality[metric.name][index] for index in results.common]
            values = np.array(given, dtype=np.float64)
            if not np.isfinite(values).any():
                values = np.full(len(values), point.mean[metric.name])
            curve.append((point.rate_of(metric.name), values))
    return curve


def at_rate(curve: Curve, rate: float) -> NDArray[np.float64] | None:
    """Value per sample at a rate; None beyond the ends of the curve.

    Between two settings it is the straight line, which a mix of files of both attains.
    """
    if not curve or not curve[0][0] * (1 - SLACK) <= rate <= curve[-1][0] * (1 + SLACK):
        return None
    for (low, below), (high, above) in pairwise(curve):
        if rate <= high:
            weight = max(0.0, (rate - low) / (high - low)) if high > low else 1.0
            return below + weight * (above - below)
    return curve[-1][1]


def verdict(results: Results, metric: Metric, rate: float) -> Verdict | None:
    """Who is best by the metric at the rate; None where no codec has it."""
    found = []
    for codec in contenders(results):
        values = at_rate(frontier(results, codec, metric), rate)
        if values is not None and np.isfinite(values).any():
            found.append(Standing(codec.name, float(np.nanmean(values)), values))
    if not found:
        return None
    found.sort(key=lambda standing: standing.mean, reverse=metric.higher_is_better)
    best, *others = found
    tied = [standing for standing in others if _tied(best, standing)]
    rest = [standing for standing in others if not _tied(best, standing)]
    return Verdict(best, tuple(tied), rest[0] if rest else None)


def _tied(best: Standing, other: Standing) -> bool:
    """Equal, or not two standard errors apart over the samples that both have."""
    differences = best.values - other.values
    differences = differences[np.isfinite(differences)]
    if len(differences) < 2:
        return best.mean == other.mean
    error = differences.std(ddof=1) / math.sqrt(len(differences))
    return bool(abs(differences.mean()) <= 2 * error)


def rates_to_ask(results: Results) -> list[float]:
    """Up to six rates: those of the tokenizers, then round ones that two codecs reach."""
    codecs = contenders(results)
    own = tokenizer_rates(results)
    spans = [
        (min(p.rate for p in c.points), max(p.rate for p in c.points)) for c in codecs if c.points
    ]
    round_ones = [step for step in LADDER if sum(low <= step <= high for low, high in spans) >= 2]
    chosen = _spread(own, COLUMNS)
    free = [step for step in round_ones if all(not _near(step, rate, 0.2) for rate in chosen)]
    chosen += _spread(free, COLUMNS - len(chosen))
    if not chosen:  # a single codec, or none that overlap
        chosen = _spread(sorted({p.rate for c in codecs for p in c.points}), COLUMNS)
    return sorted(chosen)


def tokenizer_rates(results: Results) -> list[float]:
    """The rates of the tokenizers' worthwhile settings, each 15% or more above the one before."""
    found: list[float] = []
    for rate in sorted(_own_rates(results)):
        if not found or not _near(rate, found[-1], 0.15):
            found.append(rate)
    return found


def _own_rates(results: Results) -> Iterator[float]:
    for codec in contenders(results):
        if codec.kind == "tokenizer" and results.metrics:
            yield from (rate for rate, _ in frontier(results, codec, results.metrics[0]))


def _near(one: float, other: float, within: float) -> bool:
    return abs(math.log(one / other)) < math.log1p(within)


def _spread(values: list[float], count: int) -> list[float]:
    """At most ``count`` of the values, evenly over the list, its ends among them."""
    if count <= 0:
        return []
    if len(values) <= count:
        return list(values)
    if count == 1:
        return [values[len(values) // 2]]
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]
