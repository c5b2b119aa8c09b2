"""Short runs that differ from a preset in one thing each, as a table of what each thing brings.

Every variant trains for the same number of steps with a learning rate that falls to zero, from the
same seed, and is scored on the same squares of the evaluation photos. Runs that are there already
are read, not made again.

    python scripts/ablate_photo.py work/photos.txt KODAK work/ablations > work/photo-lm/ablations.md
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vqtok.autoencoders import Autoencoder, preset_config
from vqtok.media import list_sources
from vqtok.training import PhotoCrops, PhotoTask, TrainConfig, Trainer
from vqtok.training.data import TrainingData

Config = dict[str, Any]


class FirstBatch(PhotoTask):
    """Starts the codebook as a small one starts: from the first batch alone."""

    def start(self, model: Autoencoder, data: TrainingData, device: torch.device) -> None:
        """Nothing: the first step of training does it."""


def as_it_is(config: Config) -> None:
    pass


def fast_means(config: Config) -> None:
    config["quantizer"]["decay"] = 0.99


def small_dim(config: Config) -> None:
    for part in ("encoder", "quantizer", "decoder"):
        config[part]["dim"] = 16


def light_decoder(config: Config) -> None:
    config["decoder"] |= {"channels": [48, 96, 160], "blocks": [0, 1, 2]}


def weak_commitment(config: Config) -> None:
    config["loss_weights"] = {"commitment": 0.005}


VARIANTS: dict[str, tuple[Callable[[Config], None], dict[str, Any]]] = {
    "as bundled": (as_it_is, {}),
    "codebook from the first batch (2,048 latents)": (as_it_is, {"task": FirstBatch()}),
    "running means over 100 steps, not 500": (fast_means, {}),
    "dimension 16, not 32": (small_dim, {}),
    "a decoder of half the work": (light_decoder, {}),
    "commitment 0.005, not 0.025": (weak_commitment, {}),
    "crops never reduced": (as_it_is, {"max_scale": 1.0}),
}


def score(name: str, args: argparse.Namespace) -> tuple[float, float]:
    """PSNR in dB and minutes of a variant."""
    change, options = VARIANTS[name]
    config = copy.deepcopy(preset_config(args.preset))
    change(config)
    out = args.out / name.replace(" ", "-").replace(",", "")
    done = out / "metrics.jsonl"
    lines = done.read_text(encoding="utf-8").splitlines() if done.exists() else []
    if not lines or json.loads(lines[-1]).get("validation_psnr") is None:
        settings: dict[str, Any] = {"size": 256, "seed": 0}
        crops = PhotoCrops(
            list_sources(args.photos),
            batch_size=8,
            max_scale=options.get("max_scale", 3.0),
            **settings,
        )
        train = TrainConfig(
            args.steps, 8, 256, 1.5e-3, warmup=50, average_decay=0.99, save_every=args.steps
        )
        Trainer(
            config,
            crops,
            out,
            train,
            name="ablation",
            task=options.get("task"),
            validation=PhotoCrops(list_sources(args.kodak), batch_size=16, **settings),
        ).fit()
        lines = done.read_text(encoding="utf-8").splitlines()
    last, pace = json.loads(lines[-1]), json.loads(lines[-2])["samples_per_second"]
    return last["validation_psnr"][-1], args.steps * 8 / pace / 60


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos")
    parser.add_argument("kodak")
    parser.add_argument("out", type=Path)
    parser.add_argument("--preset", default="photo-lm")
    parser.add_argument("--steps", type=int, default=250)
    args = parser.parse_args()
    torch.set_num_threads(1)
    scores = {name: score(name, args) for name in VARIANTS}
    reference = scores["as bundled"][0]
    print("## What each choice brings\n")
    print(
        f"Runs of {args.steps:,} steps that differ in one thing (`scripts/ablate_photo.py`), on one"
    )
    print("thread of a busy machine; the score is that of the table above:\n")
    print("| variant | PSNR dB | difference | minutes |\n|---|---|---|---|")
    for name, (psnr, minutes) in scores.items():
        print(f"| {name} | {psnr:.2f} | {psnr - reference:+.2f} | {minutes:.1f} |")


if __name__ == "__main__":
    main()
