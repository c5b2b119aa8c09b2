"""Short runs of ``photo-lm`` that differ in one thing each, as a table of what each thing brings.

Every variant trains for the same number of steps with a learning rate that falls to zero, from the
same seed (but for one, which shows how much chance does), and is scored on the same squares of the
evaluation photos. Variants that are there already are read, not made again; if it is stopped
(Ctrl-C), the table has those made so far.

    python scripts/ablate_photo.py work/photos.txt KODAK work/ablations > work/photo-lm/ablations.md
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from bundle_photo import ABLATIONS
from PIL import Image
from tqdm import tqdm

from vqtok.autoencoders import Autoencoder, preset_config
from vqtok.cli import exit_code
from vqtok.media import list_sources
from vqtok.media.images import read_image
from vqtok.media.sources import Source
from vqtok.training import PhotoCrops, PhotoTask, TrainConfig, Trainer
from vqtok.training.data import TrainingData

Config = dict[str, Any]
SMALL = 1024


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


def edges(config: Config) -> None:
    del config["reconstruction_loss"]
    config["likelihood"] = {"type": "picture", "edges": 0.2}


VARIANTS: dict[str, tuple[Callable[[Config], None], dict[str, Any]]] = {
    "as the recipe's first run": (as_it_is, {}),
    "another seed": (as_it_is, {"seed": 1}),
    "crops never reduced": (as_it_is, {"max_scale": 1.0}),
    "weights not averaged": (as_it_is, {"average_decay": 0.0}),
    "codebook from the first batch (2,048 latents)": (as_it_is, {"task": FirstBatch()}),
    "running means over 100 steps, not 500": (fast_means, {}),
    "commitment 0.005, not 0.025": (weak_commitment, {}),
    "dimension 16, not 32": (small_dim, {}),
    "a decoder of half the work": (light_decoder, {}),
    "steps between pixels weigh 0.2, as in its second run": (edges, {}),
    f"photos of at most {SMALL:,} pixels": (as_it_is, {"small": True}),
}


class Lab:
    """Photos, read once, and where the runs go."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.steps, self.out = args.steps, args.out
        self.photos = list_sources(args.photos)
        squares = {"size": 256, "seed": 0}
        self.validation = PhotoCrops(list_sources(args.kodak), batch_size=16, **squares)
        self.crops: dict[bool, PhotoCrops] = {}

    def crops_of(self, small: bool) -> PhotoCrops:
        if small not in self.crops:
            self.crops.clear()  # the photos of one kind fill gigabytes
            sources = reduced(self.photos, self.out / "small") if small else self.photos
            self.crops[small] = PhotoCrops(sources, size=256, batch_size=8)
        return self.crops[small]

    def score(self, name: str) -> dict[str, float]:
        """PSNR in dB and minutes of processor time of a variant."""
        change, options = VARIANTS[name]
        run = self.out / name.replace(" ", "-").replace(",", "").replace("'", "")
        done = run / "score.json"
        if not done.exists():
            shutil.rmtree(run, ignore_errors=True)  # of half a run the minutes are not known
            config = copy.deepcopy(preset_config("photo-lm"))
            change(config)
            crops = self.crops_of(options.get("small", False))
            crops.max_scale, crops.seed = options.get("max_scale", 3.0), options.get("seed", 0)
            train = TrainConfig(
                self.steps,
                batch_size=8,
                crop=256,
                learning_rate=1.5e-3,
                warmup=50,
                average_decay=options.get("average_decay", 0.99),
                save_every=self.steps,
                seed=crops.seed,
            )
            started = time.process_time()
            task, squares = options.get("task"), self.validation
            Trainer(config, crops, run, train, name="ablation", task=task, validation=squares).fit()
            minutes = (time.process_time() - started) / 60
            lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            psnr = json.loads(lines[-1])["validation_psnr"][-1]
            done.write_text(json.dumps({"psnr": psnr, "minutes": minutes}), encoding="utf-8")
        return dict(json.loads(done.read_text(encoding="utf-8")))


def reduced(photos: Iterable[Source], folder: Path) -> list[Source]:
    """Copies whose longer side has at most ``SMALL`` pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, source in enumerate(tqdm(photos, desc="reduce")):
        target = folder / f"{index:04}.png"
        if not target.exists():
            photo = Image.fromarray(read_image(source).pixels)
            photo.thumbnail((SMALL, SMALL), Image.Resampling.LANCZOS)
            photo.save(target.with_suffix(".tmp"), "PNG", compress_level=1)
            target.with_suffix(".tmp").rename(target)
    return list_sources(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", help="what to train on")
    parser.add_argument("kodak", help="what to judge by")
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("--steps", type=int, default=250, help="(default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lab = Lab(args)
    scores: dict[str, dict[str, float]] = {}
    try:
        for name in VARIANTS:
            scores[name] = lab.score(name)
    except KeyboardInterrupt:
        print(f"stopped: {len(VARIANTS) - len(scores)} variants are not made", file=sys.stderr)
    if not scores:
        sys.exit(130)
    reference = next(iter(scores.values()))["psnr"]
    print(ABLATIONS)
    print(
        f"Runs of {args.steps:,} steps that differ in one thing (`scripts/ablate_photo.py`); the "
        "score is that of\nthe table above, minutes are of the processor, one thread. So short, "
        'they tell what learns fast;\n"another seed" is what chance does.\n'
    )
    print("| variant | PSNR dB | difference | minutes |\n|---|---|---|---|")
    for name, found in scores.items():
        psnr = found["psnr"]
        print(f"| {name} | {psnr:.2f} | {psnr - reference:+.2f} | {found['minutes']:.1f} |")


if __name__ == "__main__":
    sys.exit(exit_code(main))
