"""Results as a bench would find them, small, for tests that only read results."""

from __future__ import annotations

import math

import numpy as np

from vqtok.bench.results import (
    BD,
    CodebookUse,
    Codec,
    Failure,
    Metric,
    Point,
    Results,
    Sample,
)

IMAGE_METRICS = (
    Metric(name="psnr", unit="dB", higher_is_better=True, definition="of RGB", samples=3),
    Metric(name="ms_ssim", unit="", higher_is_better=True, definition="of luma", samples=3),
    Metric(name="effnet_dist", unit="", higher_is_better=False, definition="features", samples=3),
)
AUDIO_METRICS = (
    Metric(name="mel", unit="", higher_is_better=False, definition="log mel spectra", samples=3),
    Metric(name="si_sdr", unit="dB", higher_is_better=True, definition="Le Roux 2019", samples=3),
)


def image_results() -> Results:
    """Four images; a tokenizer that failed on one, a baseline, a published curve."""
    sizes = [(48, 64), (64, 48), (33, 50), (16, 16)]
    samples = tuple(
        Sample(name=f"folder/phöto {i}.png", original_bytes=h * w * 2, height=h, width=w)
        for i, (h, w) in enumerate(sizes)
    )
    units = [h * w for h, w in sizes]
    photo = [
        _point(f"{q} codebooks, {tier}", units, IMAGE_METRICS, 0.15 * q * shrink, q)
        for q in (1, 2)
        for tier, shrink in (("plain", 1.6), ("bits", 1.0), ("entropy", 0.8))
    ]
    jpeg = [_point(f"quality {q}", units, IMAGE_METRICS, q / 60, 0) for q in (5, 10, 20, 40)]
    return Results(
        modality="image",
        data="photos",
        anchor="jpeg",
        quick=False,
        seed=0,
        machine={"cpu": "Example CPU", "cores": "2", "system": "Linux"},
        versions={"vqtok": "0.0.1", "pillow": "13.0.0"},
        samples=samples,
        common=(0, 1, 2),
        metrics=IMAGE_METRICS,
        codecs=(
            Codec(
                name="photo",
                kind="tokenizer",
                description="token files of the tokenizer photo",
                fingerprint="f" * 64,
                points=tuple(sorted(photo, key=lambda point: point.rate)),
            ),
            Codec(name="jpeg", kind="baseline", description="Pillow", points=tuple(jpeg)),
            Codec(
                name="VTM",
                kind="external",
                description="published results",
                points=tuple(
                    Point(setting=str(i), rate=0.1 * 2**i, mean={"psnr": 27.0 + 3 * i})
                    for i in range(4)
                ),
            ),
        ),
        failed=(
            Failure(
                codec="photo", setting="all", sample=samples[3].name, error="an <error> & more"
            ),
        ),
        bd=(
            BD(codec="jpeg", anchor="jpeg", metric="psnr", rate_percent=0.0, quality=0.0),
            BD(codec="photo", anchor="jpeg", metric="psnr", rate_percent=-31.4, quality=1.23),
            BD(
                codec="photo",
                anchor="jpeg",
                metric="ms_ssim",
                rate_percent=None,
                quality=None,
                note="no quality in common, nothing is extrapolated",
            ),
        ),
        notes=("jxl was left out: pip install pillow-jxl-plugin",),
    )


def audio_results() -> Results:
    """Three sounds of different rates and channels."""
    forms = [(1.0, 16_000, 1), (2.5, 48_000, 2), (0.75, 24_000, 1)]
    samples = tuple(
        Sample(
            name=f"sound {i}.flac",
            original_bytes=int(seconds * rate),
            seconds=seconds,
            sample_rate=rate,
            channels=channels,
        )
        for i, (seconds, rate, channels) in enumerate(forms)
    )
    units = [1000 * seconds for seconds, _, _ in forms]
    audio = [_point(f"{q} codebooks, bits", units, AUDIO_METRICS, 0.75 * q, q) for q in (1, 2, 4)]
    opus = [_point(f"{q} kbit/s", units, AUDIO_METRICS, float(q), 0) for q in (6, 8, 12)]
    return Results(
        modality="audio",
        data="sounds",
        anchor="opus",
        quick=True,
        seed=0,
        machine={"cpu": "Example CPU", "cores": "2", "system": "Linux"},
        versions={"vqtok": "0.0.1"},
        samples=samples,
        common=(0, 1, 2),
        metrics=AUDIO_METRICS,
        codecs=(
            Codec(
                name="audio",
                kind="tokenizer",
                description="token files",
                fingerprint="e" * 64,
                points=tuple(audio),
            ),
            Codec(name="opus", kind="baseline", description="libopus", points=tuple(opus)),
        ),
    )


class ExampleMedia:
    """Noise of the right shapes: the original, and the same with less of it."""

    def __init__(self, results: Results) -> None:
        self.samples = {sample.name: sample for sample in results.samples}
        self.failed = {(failure.codec, failure.sample) for failure in results.failed}
        self.external = {codec.name for codec in results.codecs if codec.kind == "external"}

    def original(self, sample: str) -> np.ndarray:
        form = self.samples[sample]
        rng = np.random.default_rng(len(sample))
        if form.height and form.width:
            return rng.integers(0, 256, (form.height, form.width, 3), np.uint8)
        assert form.seconds is not None
        assert form.sample_rate is not None
        assert form.channels is not None
        frames = round(form.seconds * form.sample_rate)
        tone = np.sin(np.arange(frames) * 440 * 2 * math.pi / form.sample_rate)
        noise = rng.normal(0, 0.1, (frames, form.channels))
        return (0.5 * tone[:, None] + noise).astype(np.float32)

    def decoded(self, codec: str, setting: str, sample: str) -> np.ndarray | None:
        if codec in self.external or (codec, sample) in self.failed:
            return None
        original = self.original(sample)
        return (original // 16 * 16) if original.dtype == np.uint8 else original * np.float32(0.9)


def _point(
    setting: str, units: list[float], metrics: tuple[Metric, ...], rate: float, books: int
) -> Point:
    """A plausible point; tokenizers (``books`` > 0) failed on a fourth sample."""
    count = len(units)
    failed = [bool(books) and i == 3 for i in range(count)]
    rates = [rate * (1 + 0.1 * i) for i in range(count)]
    quality = {}
    for metric in metrics:
        gain = math.log2(1 + rate) * (1 if metric.higher_is_better else -1)
        base = {"psnr": 25.0, "ms_ssim": 0.8, "si_sdr": 3.0}.get(metric.name, 4.0)
        step = 0.05 if metric.name == "ms_ssim" else 1.0
        quality[metric.name] = [base + step * (gain + 0.1 * i) for i in range(count)]
    uses = tuple(
        CodebookUse(
            size=64,
            usage=48 / 64,
            perplexity=40.0,
            counts=tuple((i * 7 + q) % 13 if i < 48 else 0 for i in range(64)),
        )
        for q in range(books)
    )
    return Point(
        setting=setting,
        rate=float(np.mean(rates[:3])),
        rates=tuple(None if bad else each for bad, each in zip(failed, rates, strict=True)),
        bytes=tuple(
            None if bad else max(1, round(each * unit / 8))
            for bad, each, unit in zip(failed, rates, units, strict=True)
        ),
        quality={
            name: tuple(None if bad else value for bad, value in zip(failed, values, strict=True))
            for name, values in quality.items()
        },
        mean={name: float(np.mean(values[:3])) for name, values in quality.items()},
        mean_rate={name: float(np.mean(rates[:3])) for name in quality},
        deviation={
            name: float(np.std(values[:3], ddof=1) / math.sqrt(3))
            for name, values in quality.items()
        },
        encode_seconds=0.012,
        decode_seconds=0.008,
        peak_memory_bytes=12_345_678,
        bits_per_code={"fixed": 6.0, "order0": 5.3, "entropy": 4.9} if books else None,
        codebooks=uses,
    )
