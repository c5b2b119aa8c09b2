"""beta-VAE on drawn sprites whose factors are known: MIG and DCI by beta, over seeds.

    nice -n 15 python scripts/beta_vae_sprites.py --threads 1 --json sprites.json

The sprites are like those of dSprites (Matthey et al. 2017), not the same: white on black, 16 x 16,
edges smoothed over a pixel, three shapes (square, ellipse, heart), 6 sizes, 16 x 16 places: all
4,608 of them. They stand upright, as a square looks the same after a quarter turn and an ellipse
after half a one. The places are twice as wide as high: in a square of places, x and y are no more
principal components than what is turned by any angle, and so a VAE mixes them at first.

Pixels count as Bernoulli, summed. A beta is relative to their number: 1 here is 16 at 64 x 64.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from vqtok.autoencoders import variant
from vqtok.autoencoders.disentanglement import dci, mutual_information_gap
from vqtok.cli import exit_code
from vqtok.training import default_config, fit

SIZES = (3, 6, 16, 16)  # shape, size, x, y
SIDE = 16
WIDE, HIGH = 1.0, 0.5  # of the places, in half images


def draw(factors: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """int [N, 4] to float32 [N, 1, 16, 16] in [0, 1]."""
    place = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    rows, columns = np.meshgrid(place, place, indexing="ij")
    images = np.empty((len(factors), 1, SIDE, SIDE), np.float32)
    for image, (shape, size, x, y) in zip(images, factors, strict=True):
        scale = 0.25 + 0.25 * size / (SIZES[1] - 1)
        u = (columns - (x / (SIZES[2] - 1) - 0.5) * WIDE) / scale
        v = (rows - (y / (SIZES[3] - 1) - 0.5) * HIGH) / scale
        if shape == 0:
            inside = 1 - np.maximum(np.abs(u), np.abs(v))
        elif shape == 1:
            inside = 1 - np.sqrt((u / 1.2) ** 2 + (v / 0.65) ** 2)
        else:
            inside = 0.35 * (1 - ((1.1 * u) ** 2 + (1.2 * v + 0.8 * np.sqrt(np.abs(u))) ** 2))
        image[0] = np.clip(inside * scale * SIDE / 2 + 0.5, 0, 1)
    return images


def measure(
    images: npt.NDArray[np.float32],
    factors: npt.NDArray[np.int64],
    beta: float,
    seed: int,
    steps: int,
) -> dict[str, float]:
    """Train one and score its latents' means."""
    model = variant(
        "beta-vae",
        images.shape[1:],
        beta=beta,
        code_size=10,
        hidden=(64,),
        likelihood="bernoulli",
        scaling="none",
        warmup=0,
    )
    config = default_config(steps=steps, batch_size=64, learning_rate=4e-3, seed=seed)
    model = fit(model, images, config, held_out=0.0).model
    latents = model.transform(images)
    scores = dci(latents, factors)
    with torch.no_grad():
        result = model(torch.from_numpy(images))
    return {
        "MIG": mutual_information_gap(latents, factors),
        "DCI D": scores.disentanglement,
        "DCI C": scores.completeness,
        "DCI I": scores.informativeness,
        "KL": float(result.losses["kl"]),
        "-log p": float(result.losses["reconstruction"]),
        "active": float(result.metrics["active_units"]),
    }


def main() -> None:
    """Train all, and print means and standard deviations over seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--betas", type=float, nargs="+", default=[1, 4])
    parser.add_argument("--steps", type=int, default=15_000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="write the results here as well")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    factors = np.stack(np.meshgrid(*map(np.arange, SIZES), indexing="ij"), -1).reshape(-1, 4)
    factors = np.random.default_rng(0).permutation(factors)
    images = draw(factors)
    found: dict[float, list[dict[str, float]]] = {beta: [] for beta in options.betas}
    for seed in range(1, options.seeds + 1):
        for beta in options.betas:
            scores = measure(images, factors, beta, seed, options.steps)
            found[beta].append(scores)
            line = " ".join(f"{name} {value:.3f}" for name, value in scores.items())
            print(f"seed {seed}, beta {beta:g}: {line}", file=sys.stderr, flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps(found, indent=2) + "\n")
    print(f"| beta | {' | '.join(found[options.betas[0]][0])} |")
    print("|---:" * (1 + len(found[options.betas[0]][0])) + "|")
    for beta, runs in found.items():
        cells = []
        for name in runs[0]:
            values = [run[name] for run in runs]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.3f}{spread}")
        print(f"| {beta:g} | {' | '.join(cells)} |")


if __name__ == "__main__":
    sys.exit(exit_code(main))
