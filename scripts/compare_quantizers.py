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
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqtok.cli import exit_code
from vqtok.media import list_sources
from vqtok.media.images import read_image
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
    "residual 2, 8-d": (
        lambda size, dim: ResidualQuantizer(
            [ProjectedQuantizer(VectorQuantizer(math.isqrt(size), 8), dim=dim) for _ in range(2)]
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


def compare(options: argparse.Namespace) -> None:
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
    for name in options.only:
        for size in options.codebook_sizes:
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
            if options.out is not None:
                save(rows, options)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Usage and error side by side, a bar for each quantizer and codebook size (matplotlib)."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "vqtok", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    names = list(dict.fromkeys(row["quantizer"] for row in rows))[::-1]
    sizes = sorted({row["codebook_size"] for row in rows})
    panels: tuple[tuple[str, str, float], ...] = (
        ("usage", "usage, % of the codes (higher is better)", 100),
        ("error", "squared error / variance (lower is better)", 1),
    )
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 0.8 + 0.34 * len(names)), sharey=True)
    for axis, (key, title, unit) in zip(axes, panels, strict=True):
        for index, size in enumerate(sizes):
            chosen = [row for row in rows if row["codebook_size"] == size]
            places = [names.index(row["quantizer"]) - 0.38 * index for row in chosen]
            values = [unit * row[key] for row in chosen]
            bars = axis.barh(places, values, height=0.36, label=f"{size:,} codes")
            axis.bar_label(bars, fmt="%.1f" if unit > 1 else "%.3f", padding=2, fontsize=7)
        axis.set_title(title, fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.12)
    axes[0].set_yticks([place - 0.19 * (len(sizes) - 1) for place in range(len(names))], names)
    axes[1].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def save(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """PATH.json and PATH.svg of the rows so far."""
    settings = {key: value for key, value in vars(options).items() if key not in ("out", "photos")}
    text = json.dumps(
        {"settings": {**settings, "torch": torch.__version__}, "rows": rows}, indent=2
    )
    options.out.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    plot(rows, options.out.with_suffix(".svg"))


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
    parser.add_argument("--out", type=Path, help="write PATH.json and PATH.svg after each row")
    options = parser.parse_args()
    compare(options)


if __name__ == "__main__":
    sys.exit(exit_code(main))
