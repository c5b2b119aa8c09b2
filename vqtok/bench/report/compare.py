"""What the report lets people see and hear: originals beside every codec at matched bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtok.bench.report.numbers import rounded
from vqtok.bench.report.pictures import lossless
from vqtok.bench.report.sounds import flac, power, spectrogram
from vqtok.bench.report.winners import measured, tokenizer_rates
from vqtok.bench.results import Codec, Media, Point, Results, Sample

BUDGET = 24_000_000
"""Characters of data URIs in a page."""
TARGETS = 3
SAMPLES = 8
_SIDE = 768
_SECONDS = 10.0


@dataclass
class Shelf:
    """Data URIs, each once, within a budget."""

    budget: int
    items: list[str] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)
    used: int = 0

    def put(self, uri: str) -> int:
        """The place of the URI among the items."""
        if uri not in self.places:
            self.places[uri] = len(self.items)
            self.items.append(uri)
            self.used += len(uri)
        return self.places[uri]

    def shorten(self, count: int) -> None:
        """Keep the first ``count`` items."""
        for uri in self.items[count:]:
            del self.places[uri]
            self.used -= len(uri)
        del self.items[count:]


def comparison(results: Results, media: Media, budget: int = BUDGET) -> dict[str, Any]:
    """The originals and what the codecs made of them, as JSON for the page.

    Samples are taken evenly from the common ones, as many as the budget holds; when not even one
    fits, smaller cuts of it. Nothing that is shown was compressed again with loss, except that
    sounds are of 16 bits.
    """
    rates = target_rates(results)
    shelf = Shelf(budget)
    shown: list[dict[str, Any]] = []
    cut = 1.0
    for index in _evenly(results.common):
        while True:
            before = len(shelf.items)
            entry = _entry(results, media, shelf, index, rates, cut)
            if shelf.used <= budget:
                shown.append(entry)
                break
            shelf.shorten(before)
            if shown or cut < 0.1:
                break
            cut /= 2
        if shelf.used > 0.9 * budget or len(shown) == SAMPLES:
            break
    shown.sort(key=lambda entry: int(entry["index"]))
    return {"rates": rates, "samples": shown, "media": shelf.items}


def target_rates(results: Results) -> list[float]:
    """Up to three rates to match: tokenizers' own, or evenly within what all codecs reach."""
    own = tokenizer_rates(results)
    if own:
        places = np.linspace(0, len(own) - 1, min(TARGETS, len(own))).round().astype(int)
        return [own[place] for place in places]
    curves = [codec.points for codec in measured(results) if codec.points]
    if not curves:
        return []
    low = max(min(point.rate for point in points) for points in curves)
    high = min(max(point.rate for point in points) for points in curves)
    if low >= high:
        return [math.sqrt(low * high)]
    return [low * (high / low) ** place for place in (0.2, 0.5, 0.8)]


def nearest_setting(codec: Codec, index: int, target: float) -> Point | None:
    """The setting whose bytes of a sample are nearest to ``target``, by ratio."""
    coded = [
        (abs(math.log(size / target)), point)
        for point in codec.points
        if point.bytes and (size := point.bytes[index])
    ]
    return min(coded, key=lambda pair: pair[0])[1] if coded else None


def target_bytes(results: Results, sample: Sample, rate: float) -> float:
    """Bytes of the sample at a rate."""
    if results.modality == "image":
        return rate * (sample.height or 1) * (sample.width or 1) / 8
    return rate * (sample.seconds or 1) * 125


def _evenly(common: tuple[int, ...]) -> list[int]:
    """The indices in an order in which any first few are spread over all."""
    order = sorted(range(len(common)), key=_reversed_bits)
    return [common[place] for place in order]


def _reversed_bits(number: int) -> int:
    return int(f"{number:032b}"[::-1], 2)


def _entry(
    results: Results, media: Media, shelf: Shelf, index: int, rates: list[float], cut: float
) -> dict[str, Any]:
    """A sample with its original and, for each rate, each codec at its nearest setting."""
    sample = results.samples[index]
    show = (
        _Pictures(sample, media.original(sample.name), cut)
        if results.modality == "image"
        else (_Sounds(sample, media.original(sample.name), cut))
    )
    entry: dict[str, Any] = {
        "index": index,
        "name": sample.name,
        "note": show.note,
        "bytes": sample.original_bytes,
        "original": show.put(shelf, show.whole),
        **show.facts,
        "shown": [],
    }
    for rate in rates:
        target = target_bytes(results, sample, rate)
        row = []
        for place, codec in enumerate(results.codecs):
            point = None if codec.kind == "external" else nearest_setting(codec, index, target)
            if point is None:
                continue
            decoded = media.decoded(codec.name, point.setting, sample.name)
            if decoded is None:
                continue
            size = point.bytes[index] or 0
            quality = {name: values[index] for name, values in point.quality.items()}
            row.append(
                {
                    "codec": place,
                    "setting": point.setting,
                    "bytes": size,
                    "ratio": round(size / target, 4),
                    "quality": quality,
                    **show.put(shelf, decoded),
                }
            )
        entry["shown"].append(row)
    return entry


class _Pictures:
    """Cuts the middle of images that are larger than the page can hold."""

    def __init__(self, sample: Sample, original: NDArray[Any], cut: float) -> None:
        self.whole = original
        height, width = original.shape[:2]
        rows, columns = (max(1, int(min(length, _SIDE) * cut)) for length in (height, width))
        self.top, self.left = (height - rows) // 2, (width - columns) // 2
        self.facts = {"width": columns, "height": rows}
        self.note = None
        if (rows, columns) != (height, width):
            self.note = f"middle {columns} × {rows} of {width} × {height} pixels"  # noqa: RUF001

    def put(self, shelf: Shelf, image: NDArray[Any]) -> dict[str, int]:
        bottom, right = self.top + self.facts["height"], self.left + self.facts["width"]
        piece = np.ascontiguousarray(image[self.top : bottom, self.left : right])
        return {"image": shelf.put(lossless(piece))}


class _Sounds:
    """Cuts the middle of sounds that are longer than the page can hold."""

    def __init__(self, sample: Sample, original: NDArray[Any], cut: float) -> None:
        self.whole = original
        self.rate = sample.sample_rate or 1
        length = int(min(len(original), _SECONDS * self.rate) * cut)
        self.start = (len(original) - length) // 2
        self.stop = self.start + length
        self.loudest = float(power(original[self.start : self.stop], self.rate).max())
        self.facts = {"seconds": length / self.rate, "sample_rate": self.rate}
        self.note = None
        if length < len(original):
            first = rounded(self.start / self.rate)
            self.note = (
                f"{rounded(length / self.rate)} s from second {first} of "
                f"{rounded(len(original) / self.rate)} s"
            )

    def put(self, shelf: Shelf, sound: NDArray[Any]) -> dict[str, int]:
        piece = sound[self.start : self.stop]
        return {
            "image": shelf.put(spectrogram(piece, self.rate, self.loudest)),
            "sound": shelf.put(flac(piece, self.rate)),
        }
