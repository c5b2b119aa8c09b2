"""Small results whose every number is what it says, with the media behind them."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from vqtok.bench.results import BD, CodebookUse, Codec, Failure, Metric, Point, Results, Sample

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;\u2028\u202e \udcff.png"
"""A file name that tries to be HTML, an attribute, JSON; with a byte that is no UTF-8."""
RATE = 16_000


@dataclass
class Toy:
    """Results and Media in one: arrays by name, and by codec, setting and name."""

    modality: Any
    originals: dict[str, np.ndarray] = field(default_factory=dict)
    made: dict[tuple[str, str, str], np.ndarray] = field(default_factory=dict)

    def original(self, sample: str) -> np.ndarray:
        return self.originals[sample]

    def decoded(self, codec: str, setting: str, sample: str) -> np.ndarray | None:
        return self.made.get((codec, setting, sample))

    def sample(self, name: str) -> Sample:
        array = self.originals[name]
        if self.modality == "image":
            height, width = array.shape[:2]
            return Sample(name=name, original_bytes=array.size, height=height, width=width)
        seconds = len(array) / RATE
        shape = {"sample_rate": RATE, "channels": array.shape[1], "seconds": seconds}
        return Sample(name=name, original_bytes=array.size * 2, **shape)

    def point(self, codec: str, setting: str, code: Any, common: list[int], **more: Any) -> Point:
        """Code every original by ``code(array) -> (bytes, array)``."""
        sizes, rates, errors = [], [], []
        for name, array in self.originals.items():
            size, self.made[codec, setting, name] = code(array)
            sizes.append(size)
            units = (
                array.shape[0] * array.shape[1]
                if self.modality == "image"
                else (len(array) / RATE * 1000)
            )
            rates.append(size * 8 / units)
            difference = array.astype(float) - self.made[codec, setting, name]
            errors.append(float(np.mean(difference**2)) + 1e-9)
        peak = 255 if self.modality == "image" else 1
        quality = {
            "psnr": tuple(float(10 * np.log10(peak**2 / error)) for error in errors),
            "mse": tuple(errors),
        }
        kept = {key: np.array(values)[common] for key, values in quality.items()}
        return Point(
            setting=setting,
            rate=float(np.mean(np.array(rates)[common])),
            rates=tuple(rates),
            bytes=tuple(sizes),
            quality=quality,
            mean={key: float(values.mean()) for key, values in kept.items()},
            mean_rate={key: float(np.mean(np.array(rates)[common])) for key in kept},
            deviation={
                key: float(values.std() / max(1, len(common) - 1) ** 0.5)
                for key, values in kept.items()
            },
            encode_seconds=0.5,
            decode_seconds=0.25,
            peak_memory_bytes=12_345_678,
            **more,
        )


def smooth_images(names: list[str], height: int = 64, width: int = 96) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made = {}
    for name in names:
        coarse = Image.fromarray(rng.integers(0, 256, (8, 12, 3), dtype=np.uint8))
        made[name] = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return made


def tones(names: list[str], seconds: float = 1.5) -> dict[str, np.ndarray]:
    time = np.arange(int(seconds * RATE)) / RATE
    return {
        name: (0.5 * np.sin(2 * np.pi * (400 + 300 * i) * time)[:, None]).astype(np.float32)
        for i, name in enumerate(names)
    }


def file_codec(name: str, quality: int) -> Any:
    def code(array: np.ndarray) -> tuple[int, np.ndarray]:
        file = io.BytesIO()
        Image.fromarray(array).save(file, name, quality=quality)
        return len(file.getvalue()), np.asarray(Image.open(file).convert("RGB"))

    return code


def sound_codec(quality: float) -> Any:
    def code(array: np.ndarray) -> tuple[int, np.ndarray]:
        file = io.BytesIO()
        soundfile.write(
            file, array, RATE, format="OGG", subtype="VORBIS", compression_level=1 - quality
        )
        file.seek(0)
        decoded, _ = soundfile.read(file, dtype="float32", always_2d=True)
        return len(file.getvalue()), decoded[: len(array)]

    return code


def coarse_codec(levels: int, size: int) -> Any:
    """A stand-in for a tokenizer: values rounded to so many levels, always the same bytes."""

    def code(array: np.ndarray) -> tuple[int, np.ndarray]:
        if array.dtype == np.uint8:
            step = 256 / levels
            return size, (np.floor(array / step) * step + step / 2).astype(np.uint8)
        return size, (np.round(array * levels) / levels).astype(np.float32)

    return code


def codebook(seed: int, size: int = 64) -> CodebookUse:
    counts = np.random.default_rng(seed).poisson(1.5, size)
    shares = counts[counts > 0] / counts.sum()
    perplexity = float(2 ** -(shares * np.log2(shares)).sum())
    return CodebookUse(
        size=size,
        usage=float((counts > 0).mean()),
        perplexity=perplexity,
        counts=tuple(map(int, counts)),
    )


def toy(
    modality: str = "image", names: list[str] | None = None, **changes: Any
) -> tuple[Results, Toy]:
    """A tokenizer of two rates, two baselines (one for sounds) and an external curve."""
    names = names or ["one", HOSTILE, "three"]
    is_image = modality == "image"
    media = Toy(modality, smooth_images(names) if is_image else tones(names))
    common = [i for i in range(len(names)) if i != changes.get("fails")]
    sizes = (150, 300) if is_image else (2000, 4000)
    use = [codebook(1), codebook(2)]
    bits = {"fixed": 6.0, "order0": 5.31, "entropy": 4.2}
    points = tuple(
        media.point(
            "photo",
            f"{i} codebooks",
            coarse_codec(4 * i, size),
            common,
            codebooks=tuple(use[:i]),
            bits_per_code=bits,
        )
        for i, size in enumerate(sizes, 1)
    )
    codecs = [
        Codec(
            name="photo",
            kind="tokenizer",
            description="a stand-in",
            points=points,
            fingerprint="ab" * 32,
        )
    ]
    makers = {
        "jpeg": [(f"quality {q}", file_codec("jpeg", q)) for q in (5, 30, 80)],
        "webp": [(f"quality {q}", file_codec("webp", q)) for q in (5, 30, 80)],
    }
    if not is_image:
        makers = {"vorbis": [(f"quality {q}", sound_codec(q)) for q in (0.1, 0.4, 0.8)]}
    for name, settings in makers.items():
        made = [media.point(name, setting, code, common) for setting, code in settings]
        made.sort(key=lambda point: point.rate)
        codecs.append(
            Codec(name=name, kind="baseline", description="from a library", points=tuple(made))
        )
    rates = (0.2, 0.8) if is_image else (8.0, 24.0)
    published = tuple(
        Point(setting=f"level {i}", rate=rate, mean={"psnr": 30.0 + i})
        for i, rate in enumerate(rates)
    )
    codecs.append(Codec(name="vtm <b>", kind="external", description="published", points=published))
    anchor = "jpeg" if is_image else "vorbis"
    bd = (
        BD(codec=anchor, anchor=anchor, metric="psnr", rate_percent=0.0, quality=0.0),
        BD(
            codec="photo",
            anchor=anchor,
            metric="psnr",
            rate_percent=None,
            quality=None,
            note="the curves of photo & the anchor do not overlap",
        ),
    )
    failed = ()
    if "fails" in changes:
        failed = (
            Failure(
                codec="photo",
                setting="2 codebooks",
                sample=names[changes["fails"]],
                error="ValueError: <b>too odd</b>",
            ),
        )
    results = Results(
        modality=modality,
        data="toys <i>",
        anchor=anchor,
        quick=False,
        seed=0,
        machine={"processor": "one & only"},
        versions={"vqtok": "0.0"},
        samples=tuple(media.sample(name) for name in names),
        common=tuple(common),
        metrics=(
            Metric(
                name="psnr",
                unit="dB",
                higher_is_better=True,
                definition="10 log10(peak^2 / mse)",
                samples=len(common),
            ),
            Metric(
                name="mse",
                unit="",
                higher_is_better=False,
                definition="mean squared error",
                samples=len(common),
            ),
        ),
        codecs=tuple(codecs),
        failed=failed,
        bd=bd,
    )
    return results, media
