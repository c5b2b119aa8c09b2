"""Rate against PSNR of a tokenizer at several rate weights, beside JPEG and WebP.

    python scripts/rate_weights.py photo KODAK [--weights 0 0.1 0.3 1] [--codebooks 1 2 3 4]

Rates are bytes of files over pixels: of the whole dataset folder (--pack entropy, one dataset of
all photos), of a token file for each photo alone, and of JPEG (progressive, optimised) and WebP
(method 6) files. PSNR is over RGB, the mean over photos. Each weight has a curve of its own, from
one codebook to all; BD-rates (mean difference of log rate at equal PSNR, monotone cubics) are over
what two curves have in common between 0.08 and 0.30 bpp.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.interpolate import PchipInterpolator

from vqtok.cli import exit_code
from vqtok.media import list_sources, read_image
from vqtok.pipeline import encode_dataset, make_plan
from vqtok.tokenizer import ImageTokenizer
from vqtok.tokens import TokenReader, write_shard
from vqtok.tokens.prior import Prior

Curve = list[tuple[float, float]]
"""(bits per pixel, dB)"""
LOW, HIGH = 0.08, 0.30


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tokenizer")
    parser.add_argument("data")
    parser.add_argument("--weights", type=float, nargs="+", default=[0, 0.1, 0.3, 1])
    parser.add_argument("--codebooks", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--prior", type=Path, help="another prior than the tokenizer's")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = ImageTokenizer.from_pretrained(args.tokenizer)
    if args.prior:
        tokenizer.prior = Prior.load(args.prior)
    sources = list_sources(args.data, "image")
    photos = [read_image(source).pixels for source in sources]
    others = {"jpeg": list(of_format(photos, "JPEG")), "webp": list(of_format(photos, "WEBP"))}
    found = []
    for weight in args.weights:
        curves: dict[str, Curve] = {"dataset": [], "files": []}
        for count in args.codebooks:
            rates, quality = of_tokenizer(tokenizer, args.data, photos, count, weight)
            for kind, rate in rates.items():
                curves[kind].append((rate, quality))
            if not args.json:
                said = ", ".join(f"{kind} {rate:.4f} bpp" for kind, rate in rates.items())
                print(f"weight {weight:g}, {count} codebooks: {said}, {quality:.2f} dB")
        bd = {
            kind: {name: bd_rate(points, curve) for name, curve in others.items()}
            for kind, points in curves.items()
        }
        found.append({"rate_weight": weight, **curves, "bd_rate_percent": bd})
        if not args.json:
            for kind, percents in bd.items():
                for name, percent in percents.items():
                    said = "nothing in common" if percent is None else f"{percent:+.1f}%"
                    print(f"weight {weight:g}, BD-rate of {kind} against {name}: {said}")
    if args.json:
        print(json.dumps({"weights": found, **others}))


def of_tokenizer(
    tokenizer: ImageTokenizer, data: str, photos: list[np.ndarray], count: int, weight: float
) -> tuple[dict[str, float], float]:
    """Bits per pixel of the dataset and of files of one photo each, and the mean PSNR."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "tokens"
        plan = make_plan(
            list_sources(data, "image"),
            tokenizer,
            num_codebooks=count,
            packing="entropy",
            rate_weight=weight,
        )
        encode_dataset(plan, tokenizer, out)
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        size -= sum(path.stat().st_size for path in out.glob("prior.safetensors"))
        reader = TokenReader(out)
        alone, quality = 0, []
        for sample, photo in zip(reader, photos, strict=True):
            alone += write_shard(out / "alone.safetensors", [sample], reader.header).bytes
            codes = torch.from_numpy(sample.codes.astype(np.int64))[None]
            again = tokenizer.decode(codes, size=photo.shape[:2])[0].permute(1, 2, 0).numpy()
            quality.append(psnr(photo, again))
    rates = {"dataset": 8 * size / pixels(photos), "files": 8 * alone / pixels(photos)}
    return rates, float(np.mean(quality))


def of_format(photos: list[np.ndarray], name: str) -> Iterator[tuple[float, float]]:
    options = {"JPEG": {"progressive": True, "optimize": True}, "WEBP": {"method": 6}}[name]
    for level in (1, 2, 3, 5, 8, 12, 16, 20, 25, 30, 35, 40, 50):
        size, quality = 0, []
        for photo in photos:
            file = io.BytesIO()
            Image.fromarray(photo).save(file, name, quality=level, **options)
            size += file.tell()
            quality.append(psnr(photo, np.asarray(Image.open(file).convert("RGB"))))
        yield 8 * size / pixels(photos), float(np.mean(quality))


def pixels(photos: list[np.ndarray]) -> int:
    return sum(photo.shape[0] * photo.shape[1] for photo in photos)


def psnr(one: np.ndarray, two: np.ndarray) -> float:
    error = np.square(one.astype(np.float64) - two).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def bd_rate(ours: Curve, theirs: Curve) -> float | None:
    """Percent more rate at equal PSNR; None where the curves have nothing in common."""
    fits = []
    for curve in (ours, theirs):
        if len(curve) < 2:
            return None
        rates, qualities = np.array(curve).T
        fit = PchipInterpolator(qualities, np.log(rates))
        dense = np.linspace(qualities[0], qualities[-1], 2001)
        inside = dense[(np.exp(fit(dense)) >= LOW) & (np.exp(fit(dense)) <= HIGH)]
        if not len(inside):
            return None
        fits.append((fit, inside[0], inside[-1]))
    low, high = max(f[1] for f in fits), min(f[2] for f in fits)
    if low >= high:
        return None
    grid = np.linspace(low, high, 1001)
    return float(100 * (np.exp((fits[0][0](grid) - fits[1][0](grid)).mean()) - 1))


if __name__ == "__main__":
    sys.exit(exit_code(main))
