"""From measurements of single samples to curves of means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqtok.bench.codecs.base import Coder, Curve
from vqtok.bench.codecs.tokenizers import TokenizerCoder
from vqtok.bench.inputs import units
from vqtok.bench.metrics.base import Metric as Measure
from vqtok.bench.results import CodebookUse, Codec, Failure, Metric, Point, Sample
from vqtok.bench.store import Measurement, Store, Unit
from vqtok.errors import VqtokError
from vqtok.tokens.statistics import entropy, perplexity, usage


@dataclass(frozen=True)
class Summary:
    """The curves, over which samples their means are, and what is missing from them."""

    codecs: tuple[Codec, ...]
    metrics: tuple[Metric, ...]
    common: tuple[int, ...]
    failed: tuple[Failure, ...]
    notes: tuple[str, ...]


class Table:
    """All measurements: ``units[c][s]`` is what coder c made of sample s, ``keys`` where it is."""

    def __init__(
        self,
        coders: Sequence[Coder],
        samples: Sequence[Sample],
        keys: Sequence[Sequence[str]],
        store: Store,
    ) -> None:
        self.coders, self.samples, self.keys, self.store = coders, samples, keys, store
        self.units: list[list[Unit]] = []
        for c in range(len(coders)):
            found = [store.load(keys[s][c]) for s in range(len(samples))]
            assert all(unit is not None for unit in found)
            self.units.append([unit for unit in found if unit is not None])

    def find(self, c: int, s: int, curve: str, setting: str) -> int | None:
        """The number of a measurement within its unit."""
        for i, each in enumerate(self.units[c][s].measurements):
            if (each.curve, each.setting) == (curve, setting):
                return i
        return None

    def row(self, c: int, curve: str, setting: str) -> list[Measurement | None]:
        """The measurements of all samples at one setting."""
        places = [self.find(c, s, curve, setting) for s in range(len(self.samples))]
        return [
            None if i is None else self.units[c][s].measurements[i] for s, i in enumerate(places)
        ]

    def data(self, c: int, s: int, curve: str, setting: str) -> bytes | None:
        """The coded file of a sample; None where the coder failed."""
        i = self.find(c, s, curve, setting)
        return None if i is None else self.store.data(self.keys[s][c], i)


def summarise(table: Table, measures: Sequence[Measure]) -> Summary:
    """Means over the samples that every codec coded at every setting.

    A codec that failed on all samples is left out itself.
    """
    failed = [each for c in range(len(table.coders)) for each in _failures(table, c)]
    everywhere = range(len(table.samples))
    working = [c for c in range(len(table.coders)) if any(_whole(table, c, s) for s in everywhere)]
    names = [table.coders[c].name for c in range(len(table.coders)) if c not in working]
    notes = [f"{name} is left out: it failed on every sample" for name in names]
    common = [s for s in everywhere if all(_whole(table, c, s) for c in working)]
    if not common or not working:
        raise VqtokError(
            "there is no sample that all codecs could code: "
            + "; ".join(f"{each.codec}, {each.sample}: {each.error}" for each in failed[:5])
        )
    over = {measure.name: _having(table, measure.name, working, common) for measure in measures}
    metrics = []
    for measure in measures:
        count = len(over[measure.name])
        if not count:
            notes.append(f"metric {measure.name} is left out: no sample has a value of it")
            continue
        if count < len(common):
            notes.append(
                f"metric {measure.name}: means over {count} of {len(common)} samples, the others "
                "have no value of it"
            )
        metrics.append(described(measure, count))
    shown = {metric.name: over[metric.name] for metric in metrics}
    codecs = [
        _codec(table, c, curve, common, shown) for c in working for curve in table.coders[c].curves
    ]
    return Summary(tuple(codecs), tuple(metrics), tuple(common), tuple(failed), tuple(notes))


def described(measure: Measure, samples: int) -> Metric:
    """What the report says about a measure."""
    return Metric(
        name=measure.name,
        unit=measure.unit,
        higher_is_better=measure.higher_is_better,
        definition=measure.definition,
        samples=samples,
    )


def _whole(table: Table, c: int, s: int) -> bool:
    """Whether the coder made all of its settings of a sample."""
    return table.units[c][s].error is None


def _failures(table: Table, c: int) -> list[Failure]:
    coder = table.coders[c]
    settings = {setting for curve in coder.curves for setting in curve.settings}
    found = []
    for sample, unit in zip(table.samples, table.units[c], strict=True):
        if unit.error is not None:
            done = {each.setting for each in unit.measurements}
            missing = [setting for setting in coder.curves[0].settings if setting not in done]
            first = "all" if len(missing) == len(settings) else next(iter(missing), "last")
            error = unit.error
            found.append(Failure(codec=coder.name, setting=first, sample=sample.name, error=error))
    return found


def _having(table: Table, metric: str, working: Sequence[int], common: Sequence[int]) -> list[int]:
    """The common samples that have a value of a metric, whoever coded them."""
    return [
        s
        for s in common
        if all(
            each.quality.get(metric) is not None
            for c in working
            for each in table.units[c][s].measurements
        )
    ]


def _codec(
    table: Table, c: int, curve: Curve, common: Sequence[int], over: Mapping[str, Sequence[int]]
) -> Codec:
    coder = table.coders[c]
    points = [_point(table, c, curve.name, setting, common, over) for setting in curve.settings]
    return Codec(
        name=curve.name,
        kind=coder.kind,
        description=curve.description,
        fingerprint=coder.fingerprint,
        points=tuple(sorted(points, key=lambda point: point.rate)),
    )


def _point(
    table: Table,
    c: int,
    curve: str,
    setting: str,
    common: Sequence[int],
    over: Mapping[str, Sequence[int]],
) -> Point:
    row = table.row(c, curve, setting)
    rates = [
        None if each is None else each.bytes * 8 / units(sample)
        for each, sample in zip(row, table.samples, strict=True)
    ]
    quality = {
        name: tuple(None if each is None else each.quality.get(name) for each in row)
        for name in over
    }
    chosen = [row[s] for s in common]
    done = [each for each in chosen if each is not None]
    peaks = [each.peak_memory_bytes for each in done if each.peak_memory_bytes is not None]
    bits, codebooks = _codes(table, c, curve, setting, common)
    values = {name: _values(quality[name], samples) for name, samples in over.items()}
    return Point(
        setting=setting,
        rate=mean(_values(rates, common)),
        rates=tuple(rates),
        bytes=tuple(None if each is None else each.bytes for each in row),
        quality=quality,
        mean={name: mean(each) for name, each in values.items()},
        mean_rate={name: mean(_values(rates, samples)) for name, samples in over.items()},
        deviation={name: standard_error(each) for name, each in values.items()},
        encode_seconds=math.fsum(each.encode_seconds for each in done),
        decode_seconds=math.fsum(each.decode_seconds for each in done),
        peak_memory_bytes=max(peaks, default=None),
        bits_per_code=bits,
        codebooks=codebooks,
    )


def _codes(
    table: Table, c: int, curve: str, setting: str, common: Sequence[int]
) -> tuple[dict[str, float] | None, tuple[CodebookUse, ...]]:
    """What the codes of the common samples cost, and how they use the codebooks."""
    coder = table.coders[c]
    if not isinstance(coder, TokenizerCoder):
        return None, ()
    how = coder.settings[setting]
    used = how.num_codebooks
    sizes = coder.tokenizer.codebook_sizes[:used]
    counts = [np.zeros(size, np.int64) for size in sizes]
    total = coded_bytes = 0
    coded = how.curves.get("entropy")
    for s in common:
        data = table.data(c, s, curve, setting)
        assert data is not None
        codes: NDArray[np.int64] = coder.codes(data).reshape(-1, used)
        total += codes.size
        for q, count in enumerate(counts):
            count += np.bincount(codes[:, q], minlength=len(count))
        packed = table.data(c, s, coded, setting) if coded else None
        coded_bytes += coder.code_bytes(packed) if packed is not None else 0
    bits = {
        "fixed": mean([max(1, (size - 1).bit_length()) for size in sizes]),
        "order0": mean([entropy(count) for count in counts]),
    }
    if coded:
        bits["entropy"] = coded_bytes * 8 / total
    uses = [
        CodebookUse(
            size=len(count),
            usage=usage(count),
            perplexity=perplexity(count),
            counts=tuple(count.tolist()),
        )
        for count in counts
    ]
    return bits, tuple(uses)


def _values(values: Sequence[float | None], samples: Sequence[int]) -> list[float]:
    chosen = [values[s] for s in samples]
    known = [value for value in chosen if value is not None]
    assert len(known) == len(chosen)
    return known


def mean(values: Sequence[float]) -> float:
    """The mean, of exact sums."""
    return math.fsum(values) / len(values)


def standard_error(values: Sequence[float]) -> float:
    """Of the mean; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))
