"""The samples of a bench: whole files, or (quick) a piece of each of a few."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vqtok.bench.results import Sample
from vqtok.media.audio import read_audio
from vqtok.media.images import read_image
from vqtok.media.sources import Source

Item = TypeVar("Item")

QUICK_SAMPLES = 4
QUICK_SIDE = 512
QUICK_SECONDS = 5

QUICK_NOTE = {
    "image": f"quick: at most {QUICK_SAMPLES} images, of each the {QUICK_SIDE} x {QUICK_SIDE} "
    "pixels in its middle, fewer settings and metrics",
    "audio": f"quick: at most {QUICK_SAMPLES} sounds, of each the first {QUICK_SECONDS} seconds, "
    "fewer settings and metrics",
}


def read_sample(source: Source, modality: str, quick: bool) -> tuple[NDArray[Any], Sample]:
    """uint8 [H, W, 3] or float32 [n, C], and its description. DataError where it can't be read."""
    if modality == "image":
        pixels = read_image(source).pixels
        if quick:
            top, left = (max(0, side - QUICK_SIDE) // 2 for side in pixels.shape[:2])
            pixels = pixels[top : top + QUICK_SIDE, left : left + QUICK_SIDE]
        height, width = pixels.shape[:2]
        sample = Sample(name=source.uri, original_bytes=source.size, height=height, width=width)
        return np.ascontiguousarray(pixels), sample
    audio = read_audio(source)
    samples = audio.samples.T
    if quick:
        samples = samples[: QUICK_SECONDS * audio.sample_rate]
    return np.ascontiguousarray(samples), Sample(
        name=source.uri,
        original_bytes=source.size,
        seconds=len(samples) / audio.sample_rate,
        sample_rate=audio.sample_rate,
        channels=samples.shape[1],
    )


def units(sample: Sample) -> float:
    """What a rate is per: pixels, or milliseconds, so that bits by it are bpp or kbps."""
    if sample.seconds is not None:
        return sample.seconds * 1000
    assert sample.height is not None
    assert sample.width is not None
    return sample.height * sample.width


def a_few(items: Sequence[Item], count: int = QUICK_SAMPLES) -> list[Item]:
    """At most ``count``, evenly spread, the first among them."""
    if len(items) <= count:
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]
