"""What the report lets people see and hear: originals beside every codec at matched bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtok.bench.report.excerpts import Picture, Sound
from vqtok.bench.report.winners import contenders, tokenizer_rates
from vqtok.bench.results import Codec, Media, Point, Results

BUDGET = 24_000_000
"""Characters of data URIs in a page."""
TARGETS = 3
SAMPLES = 8


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

    def put_all(self, uris: dict[str, str]) -> dict[str, int]:
        """The places of several."""
        return {name: self.put(uri) for name, uri in uris.items()}

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
    for index in _evenly(results.common)[:SAMPLES]:
        original = media.original(results.samples[index].name)
        rows = [_chosen(results, media, index, rate) for rate in rates]
        before, cut = len(shelf.items), 1.0
        entry = _entry(results, shelf, index, original, rows, cut)
        while shelf.used > budget and not shown and cut > 0.1:
            shelf.shorten(before)
            cut /= 2
            entry = _entry(results, shelf, index, original, rows, cut)
        if shelf.used > budget:
            shelf.shorten(before)
            break
        shown.append(entry)
    shown.sort(key=lambda entry: int(entry["index"]))
    return {"rates": rates, "samples": shown, "media": shelf.items}


def target_rates(results: Results) -> list[float]:
    """Up to three rates to match: tokenizers' own, or evenly within what all codecs reach."""
    own = tokenizer_rates(results)
    if own:
        places = np.linspace(0, len(own) - 1, min(TARGETS, len(own))).round().astype(int)
        return [own[place] for place in places]
    curves = [codec.points for codec in contenders(results) if codec.points]
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


def target_bytes(results: Results, index: int, rate: float) -> float:
    """Bytes to match for a sample: of the tokenizer whose rate it is, else those of the rate."""
    for codec in contenders(results):
        for point in codec.points if codec.kind == "tokenizer" else ():
            size = point.bytes[index]
            if size and point.rate_of(results.metrics[0].name) == rate:
                return size
    sample = results.samples[index]
    if results.modality == "image":
        return rate * (sample.height or 1) * (sample.width or 1) / 8
    return rate * (sample.seconds or 1) * 125


def _short_name(results: Results, index: int) -> str:
    """The name without the folders that all samples are in."""
    folders = zip(*(sample.name.split("/")[:-1] for sample in results.samples), strict=False)
    shared = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, folders))
    return "/".join(results.samples[index].name.split("/")[shared:])


def _evenly(common: tuple[int, ...]) -> list[int]:
    """The indices in an order in which any first few are spread over all."""
    order = sorted(range(len(common)), key=_reversed_bits)
    return [common[place] for place in order]


def _reversed_bits(number: int) -> int:
    return int(f"{number:032b}"[::-1], 2)


@dataclass(frozen=True)
class _Chosen:
    """A codec at the setting nearest to the bytes of a rate, and what it made of the sample."""

    codec: Codec
    point: Point
    ratio: float
    decoded: NDArray[Any]


def _chosen(results: Results, media: Media, index: int, rate: float) -> list[_Chosen]:
    sample = results.samples[index]
    target = target_bytes(results, index, rate)
    found = []
    for codec in contenders(results):
        point = nearest_setting(codec, index, target)
        if point is not None:
            decoded = media.decoded(codec.name, point.setting, sample.name)
            if decoded is not None:
                ratio = (point.bytes[index] or 0) / target
                found.append(_Chosen(codec, point, round(ratio, 4), decoded))
    return found


def _entry(
    results: Results,
    shelf: Shelf,
    index: int,
    original: NDArray[Any],
    rows: list[list[_Chosen]],
    cut: float,
) -> dict[str, Any]:
    """A sample with its original and, for each rate, what was chosen."""
    sample = results.samples[index]
    excerpt = (Picture if results.modality == "image" else Sound)(sample, original, cut)

    def shown(each: _Chosen) -> dict[str, Any]:
        return {
            "codec": results.codecs.index(each.codec),
            "setting": each.point.setting,
            "bytes": each.point.bytes[index],
            "ratio": each.ratio,
            "quality": {name: values[index] for name, values in each.point.quality.items()},
            **shelf.put_all(excerpt.media(each.decoded)),
        }

    return {
        "index": index,
        "name": _short_name(results, index),
        "note": excerpt.note,
        "bytes": sample.original_bytes,
        "original": shelf.put_all(excerpt.media(original)),
        **excerpt.facts,
        "shown": [[shown(each) for each in row] for row in rows],
    }
