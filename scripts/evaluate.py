"""Score an image tokenizer at every rate it offers.

For each number of codebooks: bits per pixel at fixed width and at order-0 entropy (each codebook's
own statistics over all images), PSNR (RGB, mean over images, in dB) and the usage of the last
codebook; then the speed of coding on this machine. Files and their overhead are measured by
``scripts/demo.py`` and ``vqtok inspect``; here the codes alone count.

    python scripts/evaluate.py photo KODAK
    python scripts/evaluate.py photo-lm KODAK --crop 256
    python scripts/evaluate.py runs/mine photos/ --json
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from vqtok.cli import exit_code
from vqtok.media import list_sources
from vqtok.media.images import read_image
from vqtok.tokenizer import Tokenizer


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two uint8 images, in dB."""
    error = float(np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2))
    return 10 * math.log10(255**2 / max(error, 1e-12))


def entropy(counts: np.ndarray) -> float:
    """Bits per code of a histogram."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())


def images(data: str, crop: int | None) -> Iterator[np.ndarray]:
    """The pixels of every image, whole or in squares of ``crop`` pixels, without the rest."""
    for source in list_sources(data):
        image = read_image(source).pixels
        if crop is None:
            yield image
            continue
        for top in range(0, image.shape[0] - crop + 1, crop):
            for left in range(0, image.shape[1] - crop + 1, crop):
                yield image[top : top + crop, left : left + crop]


def evaluate(tokenizer: Tokenizer, data: str, crop: int | None = None) -> dict[str, Any]:
    """Every rate's figures over a folder of images, or over their squares."""
    q = tokenizer.num_codebooks
    scores: list[list[float]] = [[] for _ in range(q)]
    histograms = [np.zeros(size, np.int64) for size in tokenizer.codebook_sizes]
    pixels = codes_per_plane = count = 0
    encode_seconds = decode_seconds = 0.0
    for count, image in enumerate(images(data, crop), 1):  # noqa: B007
        batch = torch.from_numpy(image).permute(2, 0, 1)[None]
        size = (image.shape[0], image.shape[1])
        started = time.perf_counter()
        codes = tokenizer.encode(batch)
        encode_seconds += time.perf_counter() - started
        pixels += size[0] * size[1]
        codes_per_plane += codes.shape[1] * codes.shape[2]
        for index, histogram in enumerate(histograms):
            histogram += np.bincount(codes[..., index].flatten(), minlength=len(histogram))
        for used in range(1, q + 1):
            started = time.perf_counter()
            decoded = tokenizer.decode(codes[..., :used], size=size)
            decode_seconds += time.perf_counter() - started
            scores[used - 1].append(psnr(image, decoded[0].permute(1, 2, 0).numpy()))
    rates = []
    for used in range(1, q + 1):
        widths = [math.ceil(math.log2(size)) for size in tokenizer.codebook_sizes[:used]]
        order0 = [entropy(histogram) for histogram in histograms[:used]]
        rates.append(
            {
                "num_codebooks": used,
                "bpp_fixed": sum(widths) * codes_per_plane / pixels,
                "bpp_order0": sum(order0) * codes_per_plane / pixels,
                "psnr_db": float(np.mean(scores[used - 1])),
                "usage": float((histograms[used - 1] > 0).mean()),
            }
        )
    return {
        "tokenizer": tokenizer.name,
        "fingerprint": tokenizer.fingerprint,
        "images": count,
        "rates": rates,
        "encode_mpx_per_second": pixels / encode_seconds / 1e6,
        "decode_mpx_per_second": pixels * q / decode_seconds / 1e6,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tokenizer", help="a bundled name or a tokenizer folder")
    parser.add_argument("data", help="images: folder, glob, list or tar")
    parser.add_argument(
        "--crop", type=int, help="score squares of so many pixels, not whole images"
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    parser.add_argument("--precision", default="float32", help="of the network, or bfloat16")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    tokenizer = Tokenizer.from_pretrained(args.tokenizer).to(precision=args.precision)
    result = evaluate(tokenizer, args.data, args.crop)
    if args.json:
        print(json.dumps(result))
        return
    print(f"{result['tokenizer']} ({result['fingerprint'][:12]}) on {result['images']} images")
    print("codebooks  bpp fixed  bpp order-0   PSNR dB  usage of the last")
    for rate in result["rates"]:
        print(
            f"{rate['num_codebooks']:9d}  {rate['bpp_fixed']:9.4f}  {rate['bpp_order0']:11.4f}"
            f"  {rate['psnr_db']:8.2f}  {rate['usage']:17.1%}"
        )
    print(
        f"{result['encode_mpx_per_second']:.2f} Mpx/s encode, "
        f"{result['decode_mpx_per_second']:.2f} Mpx/s decode, {result['threads']} threads"
    )


if __name__ == "__main__":
    sys.exit(exit_code(main))
