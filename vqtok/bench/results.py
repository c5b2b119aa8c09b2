"""What a bench found, as data: results.json and results.csv."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vqtok.bench.fields import read_fields
from vqtok.errors import DataError
from vqtok.files import atomic_write
from vqtok.tokens.header import parse_json

FORMAT = 1

Modality = Literal["image", "audio"]
Kind = Literal["tokenizer", "baseline", "external"]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One file of the data. Images have ``height`` and ``width``, sounds ``seconds``,
    ``sample_rate`` and ``channels``; ``original_bytes`` is the size of the file as it was given.
    """

    name: str
    original_bytes: int
    height: int | None = None
    width: int | None = None
    seconds: float | None = None
    sample_rate: int | None = None
    channels: int | None = None


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A measure of quality. ``samples``: over how many samples its means are; a metric that some
    original has no value of (too small, silent) is averaged over the others, for every codec.
    """

    name: str
    unit: str
    higher_is_better: bool
    definition: str
    samples: int


@dataclass(frozen=True, kw_only=True)
class CodebookUse:
    """How the codes of one codebook are spread over the common samples; ``counts`` has ``size``
    entries, ``usage`` is the fraction that occurs, ``perplexity`` 2 to the entropy.
    """

    size: int
    usage: float
    perplexity: float
    counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Point:
    """One setting of a codec: a point of its rate-distortion curve.

    Lists are in the order of the samples, None where the codec failed (or the metric has no value).
    Means are over the common samples, those that no codec failed on at any setting.

    Attributes:
        setting: such as "quality 12" or "2 codebooks, entropy".
        rate: mean of ``rates`` over the common samples.
        rates: bits per pixel, or kilobits per second, of the whole file.
        bytes: of the file, headers included.
        quality: by metric, value per sample.
        mean: by metric.
        mean_rate: by metric, the mean rate over the very samples of that mean; see rate_of.
        deviation: by metric, the standard error of the mean; 0 for a single sample.
        encode_seconds, decode_seconds: of all common samples together, one after the other.
        peak_memory_bytes: most that coding a sample took beyond what the process held before.
        bits_per_code: "fixed", "order0", "entropy", mean over the codebooks used; tokenizers only.
        codebooks: those used, tokenizers only.
    """

    setting: str
    rate: float
    rates: tuple[float | None, ...] = ()
    bytes: tuple[int | None, ...] = ()
    quality: dict[str, tuple[float | None, ...]] = field(default_factory=dict)
    mean: dict[str, float] = field(default_factory=dict)
    mean_rate: dict[str, float] = field(default_factory=dict)
    deviation: dict[str, float] = field(default_factory=dict)
    encode_seconds: float | None = None
    decode_seconds: float | None = None
    peak_memory_bytes: int | None = None
    bits_per_code: dict[str, float] | None = None
    codebooks: tuple[CodebookUse, ...] = ()

    def rate_of(self, metric: str) -> float:
        """The rate that belongs to ``mean[metric]``: over the same samples."""
        return self.mean_rate.get(metric, self.rate)


@dataclass(frozen=True, kw_only=True)
class Codec:
    """A tokenizer, a baseline, or the published curve of an external codec (rate and mean only).

    ``points`` are in the order of their rates. ``fingerprint`` is that of a tokenizer.
    """

    name: str
    kind: Kind
    description: str
    points: tuple[Point, ...]
    fingerprint: str | None = None

    def curve(self, metric: str) -> list[Point]:
        """The points that have a mean of this metric."""
        return [point for point in self.points if metric in point.mean]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A sample that a codec did not code and decode; no mean of any codec has it."""

    codec: str
    setting: str
    sample: str
    error: str


@dataclass(frozen=True, kw_only=True)
class BD:
    """Bjontegaard deltas of a codec against the anchor.

    ``rate_percent``: bits more (+) or fewer (-) at equal quality; ``quality``: the codec's value
    less the anchor's at equal rate, in the metric's unit. None where they cannot be told; ``note``
    says why, or how it was done where it was not the usual way.
    """

    codec: str
    anchor: str
    metric: str
    rate_percent: float | None
    quality: float | None
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything that the report shows. ``notes`` say what was left out and why; ``seed`` is 0, as
    nothing in a bench is drawn at random.
    """

    modality: Modality
    data: str
    anchor: str | None
    quick: bool
    seed: int
    machine: dict[str, str]
    versions: dict[str, str]
    samples: tuple[Sample, ...]
    common: tuple[int, ...]
    metrics: tuple[Metric, ...]
    codecs: tuple[Codec, ...]
    failed: tuple[Failure, ...] = ()
    bd: tuple[BD, ...] = ()
    notes: tuple[str, ...] = ()
    format: int = FORMAT

    @property
    def rate_unit(self) -> str:
        """ "bpp" (bits per pixel) or "kbps"."""
        return "bpp" if self.modality == "image" else "kbps"

    def to_json(self) -> dict[str, Any]:
        """A JSON object; :meth:`from_json` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object, where: str) -> Results:
        """Read results; DataError naming ``where`` when they are malformed or of a newer vqtok."""
        if isinstance(value, Mapping) and value.get("format", FORMAT) != FORMAT:
            raise DataError(
                f"{where}: bench results of format {value['format']!r}, this vqtok reads {FORMAT}"
            )
        results = read_fields(cls, value, where)
        _check(results, where)
        return results

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read results.json; DataError when it is malformed."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        return cls.from_json(parse_json(data, str(path)), str(path))

    def save(self, folder: Path) -> None:
        """Write results.json and results.csv into ``folder``."""
        text = json.dumps(self.to_json(), ensure_ascii=False, allow_nan=False)
        for name, data in (("results.json", text + "\n"), ("results.csv", self.to_csv())):
            with atomic_write(folder / name, durable=False) as file:
                file.write(data.encode("utf-8", "backslashreplace"))

    def to_csv(self) -> str:
        """A row per codec and setting: rate, mean bytes, each metric's mean and standard error."""
        names = [metric.name for metric in self.metrics]
        levels = ["fixed", "order0", "entropy"]
        columns = ["codec", "kind", "setting", self.rate_unit, "mean_bytes", "samples"]
        columns += [column for name in names for column in (name, f"{name}_se")]
        columns += ["encode_seconds", "decode_seconds", "peak_memory_bytes"]
        columns += [f"bits_per_code_{level}" for level in levels]
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(columns)
        for codec in self.codecs:
            for point in codec.points:
                sizes = [point.bytes[i] for i in self.common] if point.bytes else []
                known = [size for size in sizes if size is not None]
                mean_bytes = sum(known) / len(known) if known else None
                row = [codec.name, codec.kind, point.setting, point.rate, mean_bytes, len(known)]
                for name in names:
                    row += [point.mean.get(name), point.deviation.get(name)]
                row += [point.encode_seconds, point.decode_seconds, point.peak_memory_bytes]
                row += [(point.bits_per_code or {}).get(level) for level in levels]
                rows.writerow(["" if cell is None else cell for cell in row])
        return text.getvalue()


class Media(Protocol):
    """The pixels and samples behind results: images uint8 [H, W, 3], sounds float32 [n, C] at the
    rate of the sample, decoded ones of the size of the original.
    """

    def original(self, sample: str) -> NDArray[Any]:
        """The sample of this name."""

    def decoded(self, codec: str, setting: str, sample: str) -> NDArray[Any] | None:
        """What the codec made of it; None where it failed, or is external."""


def _check(results: Results, where: str) -> None:
    """What types do not say: DataError for lists of another length than the samples'."""
    count = len(results.samples)
    if any(not 0 <= index < count for index in results.common):
        raise DataError(f"{where}: common samples {results.common}, there are {count} samples")
    for codec in results.codecs:
        for point in codec.points:
            lists = [point.rates, point.bytes, *point.quality.values()]
            if codec.kind != "external" and any(len(values) != count for values in lists):
                raise DataError(
                    f"{where}: {codec.name}, {point.setting}: lists must have {count} entries"
                )
            for use in point.codebooks:
                if len(use.counts) != use.size:
                    raise DataError(
                        f"{where}: {codec.name}, {point.setting}: {len(use.counts)} counts of a "
                        f"codebook of {use.size}"
                    )
            if not np.isfinite(point.rate) or point.rate <= 0:
                raise DataError(f"{where}: {codec.name}, {point.setting}: rate {point.rate}")
