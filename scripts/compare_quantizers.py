"""Train every quantizer on the latents of photos, and compare usage and reconstruction.

The latents are those of a trained image tokenizer, scaled to unit variance, so that all quantizers
code the same thing. Codebooks of other dimensions, and those that live on a sphere or a grid, sit
between two linear layers that are trained with them. A share of the latents is held out: usage,
perplexity and error are measured there, at the end. (Usage is what that many latents use: a code
with a tenth of a fair share needs ten times the codebook size of them to be seen.)

``error`` is the mean squared error over the variance: 0 is perfect, 1 is what the mean would give.
``bits`` is log2 of the perplexity, what an ideal order-0 coder would spend on a code.

    python scripts/compare_quantizers.py photos/ --tokenizer photo --minutes 3 --out comparison
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqtok.media.images import read_image
from vqtok.media.sources import list_sources
from vqtok.quantizers import (
    BSQ,
    FSQ,
    IBQ,
    IFSQ,
    LFQ,
    GroupedQuantizer,
    GumbelQuantizer,
    ProjectedQuantizer,
    Quantizer,
    ResidualQuantizer,
    SimVQ,
    VectorQuantizer,
)
from vqtok.tokenizer import Tokenizer, to_unit_range

# Levels whose product comes closest to the codebook size from below.
LEVELS = {64: [4, 4, 4], 1024: [8, 5, 5, 5], 16384: [8, 8, 8, 6, 5]}

# Each with the published weights of its losses; terms that are not named weigh 1.
Recipe = tuple[Callable[[int, int], Quantizer], dict[str, float]]
ENTROPY = {"commitment": 0.25, "entropy": 0.1, "diversity": 0.1}
RECIPES: dict[str, Recipe] = {
    "vector": (VectorQuantizer, {"commitment": 0.25}),
    "vector, no revival": (
        lambda size, dim: VectorQuantizer(size, dim, revive_below=0.0),
        {"commitment": 0.25},
    ),
    "vector, gradient": (
        lambda size, dim: VectorQuantizer(size, dim, learning="gradient"),
        {"commitment": 0.25},
    ),
    "vector, 8-d cosine": (
        lambda size, dim: ProjectedQuantizer(VectorQuantizer(size, 8, cosine=True), dim=dim),
        {"commitment": 0.25},
    ),
    "simvq": (SimVQ, {"commitment": 0.25}),
    "ibq": (IBQ, {"codebook": 0.25, "entropy": 0.05, "diversity": 0.05}),
    "gumbel": (GumbelQuantizer, {"kl": 5e-4}),
    "fsq": (lambda size, dim: ProjectedQuantizer(FSQ(LEVELS[size]), dim=dim), {}),
    "ifsq": (lambda size, dim: ProjectedQuantizer(IFSQ(LEVELS[size]), dim=dim), {}),
    "lfq": (lambda size, dim: ProjectedQuantizer(LFQ(_bits(size)), dim=dim), ENTROPY),
    "bsq": (lambda size, dim: ProjectedQuantizer(BSQ(_bits(size)), dim=dim), ENTROPY),
    "grouped 2": (
        lambda size, dim: GroupedQuantizer(
            [VectorQuantizer(math.isqrt(size), dim // 2) for _ in range(2)]
        ),
        {"commitment": 0.25},
    ),
    "residual 2": (
        lambda size, dim: ResidualQuantizer(
            [VectorQuantizer(math.isqrt(size), dim) for _ in range(2)]
        ),
        {"commitment": 0.25},
    ),
}


def _bits(size: int) -> int:
    return size.bit_length() - 1


@torch.inference_mode()
def read_latents(tokenizer: Tokenizer, folder: str, positions: int, crop: int) -> Tensor:
    """Latents [N, D] of the middle of each image, N at most ``positions``."""
    found: list[Tensor] = []
    count = 0
    for source in list_sources(folder):
        pixels = torch.from_numpy(read_image(source).pixels)
        top, left = (max(0, (side - crop) // 2) for side in pixels.shape[:2])
        pixels = pixels[top : top + crop, left : left + crop]
        height, width = (side // tokenizer.downsample for side in pixels.shape[:2])
        if height == 0 or width == 0:
            continue
        pixels = pixels[: height * tokenizer.downsample, : width * tokenizer.downsample]
        images = to_unit_range(pixels.permute(2, 0, 1)[None].to(tokenizer.device))
        latents = tokenizer.autoencoder.encoder(images)
        found.append(latents.reshape(-1, latents.shape[-1]).cpu())
        count += len(found[-1])
        if count >= positions:
            break
    if not found:
        raise SystemExit(f"no images under {folder}")
    return torch.cat(found)[:positions]


def train(
    quantizer: Quantizer,
    weights: dict[str, float],
    latents: Tensor,
    options: argparse.Namespace,
) -> int:
    """Train for the given processor minutes; returns the number of steps."""
    parameters = [parameter for parameter in quantizer.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, options.learning_rate) if parameters else None
    quantizer.train()
    steps = 0
    end = time.process_time() + 60 * options.minutes
    while time.process_time() < end and (options.steps is None or steps < options.steps):
        batch = latents[torch.randint(len(latents), (options.batch,))].to(options.device)
        result = quantizer(batch)
        loss = (result.quantized - batch).square().mean()
        loss = loss + sum(weights.get(name, 1.0) * term for name, term in result.losses.items())
        if optimizer is not None and loss.requires_grad:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        steps += 1
    return steps


@torch.inference_mode()
def evaluate(quantizer: Quantizer, latents: Tensor, batch: int, device: str) -> dict[str, float]:
    """Usage, perplexity and error over all of the held-out latents."""
    quantizer.eval()
    codes, error = [], 0.0
    for chunk in latents.split(batch):
        result = quantizer(chunk.to(device))
        codes.append(result.codes.cpu())
        error += float((result.quantized.cpu() - chunk).square().sum())
    sizes = quantizer.codebook_sizes
    counts = [
        torch.bincount(column, minlength=size).double()
        for column, size in zip(torch.cat(codes).T, sizes, strict=True)
    ]
    share = [count / count.sum() for count in counts]
    variance = float((latents - latents.mean(0)).square().sum())
    return {
        "usage": sum(float((count > 0).sum()) for count in counts) / sum(sizes),
        "bits": sum(float(torch.special.entr(s).sum()) for s in share) / math.log(2),
        "fixed_bits": sum(math.log2(size) for size in sizes),
        "error": error / variance,
    }


def compare(options: argparse.Namespace) -> list[dict[str, Any]]:
    tokenizer = Tokenizer.from_pretrained(options.tokenizer).to(options.device)
    latents = read_latents(tokenizer, options.photos, options.positions, options.crop)
    latents = latents / latents.std()
    generator = torch.Generator().manual_seed(options.seed)
    latents = latents[torch.randperm(len(latents), generator=generator)]
    held_out_count = int(options.held_out * len(latents))
    held_out, training = latents.split([held_out_count, len(latents) - held_out_count])
    print(f"{len(training)} latents to train on, {len(held_out)} held out, D = {latents.shape[1]}")
    print("\n| K | quantizer | usage % | bits (of) | error | steps |\n|---|---|---|---|---|---|")
    rows: list[dict[str, Any]] = []
    for size in options.codebook_sizes:
        for name in options.only:
            make, weights = RECIPES[name]
            torch.manual_seed(options.seed)
            quantizer = make(size, latents.shape[1]).to(options.device)
            steps = train(quantizer, weights, training, options)
            row = {"codebook_size": size, "quantizer": name, "steps": steps}
            row |= evaluate(quantizer, held_out, options.batch, options.device)
            rows.append(row)
            print(
                f"| {size} | {name} | {100 * row['usage']:.1f} | {row['bits']:.2f} "
                f"({row['fixed_bits']:.2f}) | {row['error']:.4f} | {steps} |",
                flush=True,
            )
    return rows


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Error over bits, a dot per quantizer, as a self-contained SVG."""
    width, height, margin = 760, 480, 60
    bits = [row["bits"] for row in rows]
    errors = [math.log10(max(row["error"], 1e-6)) for row in rows]
    low, high = math.floor(min(bits)), math.ceil(max(bits) + 0.1)
    bottom, top = min(errors) - 0.05, max(errors) + 0.05
    space, title = "http://www.w3.org/2000/svg", "Relative error (log scale) over bits per code"
    parts = [
        f'<svg xmlns="{space}" viewBox="0 0 {width} {height}" font-family="sans-serif">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{margin}" y="24">{title}</text><g font-size="11">',
    ]
    for tick in range(low, high + 1):
        x = margin + (tick - low) / (high - low) * (width - 2 * margin)
        parts.append(f'<text x="{x:.1f}" y="{height - margin + 18}">{tick}</text>')
    for row, bit, error in zip(rows, bits, errors, strict=True):
        x = margin + (bit - low) / (high - low) * (width - 2 * margin)
        y = margin + (top - error) / (top - bottom) * (height - 2 * margin)
        label = f"{row['quantizer']} ({row['codebook_size']}): {row['error']:.3f}"
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="steelblue"/>')
        parts.append(f'<text x="{x + 7:.1f}" y="{y + 4:.1f}">{label}</text>')
    path.write_text("\n".join([*parts, "</g></svg>"]) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", help="a folder of images")
    parser.add_argument("--tokenizer", default="photo", help="whose encoder makes the latents")
    parser.add_argument(
        "--minutes", type=float, default=3.0, help="processor minutes for each quantizer"
    )
    parser.add_argument("--steps", type=int, help="stop after as many steps, if sooner")
    parser.add_argument(
        "--codebook-sizes", type=int, nargs="+", default=[1024, 16384], choices=sorted(LEVELS)
    )
    parser.add_argument("--only", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--positions", type=int, default=2_000_000, help="latents to read")
    parser.add_argument("--held-out", type=float, default=0.2, help="share of them held out")
    parser.add_argument("--crop", type=int, default=768, help="pixels of each image, each way")
    parser.add_argument("--batch", type=int, default=4096, help="latents per step")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write PATH.json and PATH.svg")
    options = parser.parse_args()
    rows = compare(options)
    if options.out is not None:
        settings = {**vars(options), "out": str(options.out), "torch": torch.__version__}
        text = json.dumps({"settings": settings, "rows": rows}, indent=2) + "\n"
        options.out.with_suffix(".json").write_text(text, encoding="utf-8")
        plot(rows, options.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
