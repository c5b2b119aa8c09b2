"""How fast this machine looks codes up, encodes and decodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vqtok import ops
from vqtok.media.audio import read_audio
from vqtok.media.images import read_image
from vqtok.samples import photos, sounds
from vqtok.tokenizer import AudioTokenizer, ImageTokenizer, Tokenizer

LOOKUPS = ((65_536, 8, 1024), (65_536, 64, 1024), (16_384, 256, 16_384))
"""Rows, dimensions and codebook sizes of the lookups that are timed."""

SECONDS = 1.0
"""How long each row of the table is measured, at least; and three rounds."""


@dataclass(frozen=True)
class Speed:
    """A row of the table: the work, what it was done on, how much of it a second."""

    what: str
    on: str
    per_second: float
    unit: str


def measure_speed(tokenizers: Sequence[str]) -> Iterator[Speed]:
    """Lookups of Gaussian rows, then each tokenizer on the bundled photos or sounds.

    The fastest round counts: others on the machine only ever make it slower.
    """
    for rows, dim, size in LOOKUPS:
        generator = torch.Generator().manual_seed(0)
        latents = torch.randn(rows, dim, generator=generator)
        codebook = torch.randn(size, dim, generator=generator)
        seconds = _fastest(lambda x=latents, c=codebook: ops.nearest(x, c))  # type: ignore[misc]
        on = f"{rows:,} rows, {dim} dimensions, {size:,} codes"
        yield Speed("lookup", on, rows / seconds / 1e6, "million rows/s")
    for name in tokenizers:
        tokenizer = Tokenizer.from_pretrained(name)
        if isinstance(tokenizer, ImageTokenizer):
            yield from _image_speed(name, tokenizer)
        elif isinstance(tokenizer, AudioTokenizer):
            yield from _audio_speed(name, tokenizer)


def _image_speed(name: str, tokenizer: ImageTokenizer) -> Iterator[Speed]:
    pixels = read_image(photos()[0]).pixels
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    height, width = pixels.shape[:2]
    codes = tokenizer.encode(images)
    on = f"a photo of {width} x {height}"
    amount, unit = height * width / 1e6, "Mpx/s"
    seconds = _fastest(lambda: tokenizer.encode(images))
    yield Speed(f"{name} encode", on, amount / seconds, unit)
    seconds = _fastest(lambda: tokenizer.decode(codes, size=(height, width)))
    yield Speed(f"{name} decode", on, amount / seconds, unit)


def _audio_speed(name: str, tokenizer: AudioTokenizer) -> Iterator[Speed]:
    samples = np.concatenate(
        [read_audio(path, tokenizer.sample_rate).samples[:1] for path in sounds()], 1
    )
    sound = torch.from_numpy(samples)[None]
    length = sound.shape[-1] / tokenizer.sample_rate
    codes = tokenizer.encode(sound)
    on, unit = f"{length:.0f} s of sound, one channel", "s of sound/s"
    seconds = _fastest(lambda: tokenizer.encode(sound))
    yield Speed(f"{name} encode", on, length / seconds, unit)
    seconds = _fastest(lambda: tokenizer.decode(codes, samples=sound.shape[-1]))
    yield Speed(f"{name} decode", on, length / seconds, unit)


def _fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest round, after one that doesn't count."""
    work()
    rounds: list[float] = []
    while len(rounds) < 3 or sum(rounds) < SECONDS:
        start = time.perf_counter()
        work()
        rounds.append(time.perf_counter() - start)
    return min(rounds)
