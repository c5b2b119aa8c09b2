"""``vqtok train``: a tokenizer from a folder of images."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

HELP = "train a tokenizer on images"
EXAMPLES = """\
examples:
  vqtok train photo --data photos/ --out runs/mine --steps 20000
  vqtok train photo --data photos/ --out runs/mine --steps 20000     (again: resumes)
  vqtok train photo --data photos/ --out runs/more --init runs/mine
  vqtok encode photos/ tokens/ --tokenizer runs/mine
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options of ``vqtok train``."""
    parser.add_argument("preset", metavar="PRESET", help="the model: photo, photo-tiny")
    parser.add_argument(
        "--data",
        required=True,
        help="images: a folder, a glob, a text list of paths, or a .tar",
    )
    parser.add_argument(
        "--out", required=True, type=Path, help="the run's folder; a run in it is resumed"
    )
    parser.add_argument("--steps", type=int, default=20_000, help="(default: %(default)s)")
    parser.add_argument(
        "--validation", metavar="DATA", help="images to score at checkpoints, never trained on"
    )
    parser.add_argument(
        "--init", metavar="TOKENIZER", help="start from these weights instead of random ones"
    )
    parser.add_argument("--name", help="the tokenizer's name (default: the preset's)")
    parser.add_argument("--batch-size", type=int, default=16, help="(default: %(default)s)")
    parser.add_argument(
        "--crop", type=int, default=128, help="side of a crop in pixels (default: %(default)s)"
    )
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--save-every", type=int, default=1000, metavar="STEPS")
    parser.add_argument("--no-autocast", action="store_true", help="train in float32, not bfloat16")
    parser.add_argument("--device", default="cpu", help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")


def run(args: argparse.Namespace) -> int:
    """Train; prints the finished tokenizer's facts as one JSON line."""
    import torch

    from vqtok.autoencoders import preset_config
    from vqtok.errors import UsageError
    from vqtok.media.sources import list_sources
    from vqtok.tokenizer import Tokenizer
    from vqtok.training import PhotoCrops, TrainConfig, Trainer

    if args.steps < 1 or args.batch_size < 1 or args.save_every < 1 or args.crop < 1:
        raise UsageError("--steps, --batch-size, --crop and --save-every must be at least 1")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    try:
        model_config = preset_config(args.preset)
    except ValueError as error:
        raise UsageError(str(error)) from error
    init = None
    if args.init is not None:
        start = Tokenizer.from_pretrained(args.init).autoencoder
        model_config, init = start.config, start.state_dict()
    config = TrainConfig(
        steps=args.steps,
        batch_size=args.batch_size,
        crop=args.crop,
        learning_rate=args.learning_rate,
        autocast=not args.no_autocast,
        seed=args.seed,
        save_every=args.save_every,
    )
    crops = PhotoCrops(
        list_sources(args.data), size=args.crop, batch_size=args.batch_size, seed=args.seed
    )
    for skipped in crops.skipped:
        print(f"vqtok: left out {skipped}", file=sys.stderr)
    validation = None
    if args.validation is not None:
        validation = PhotoCrops(
            list_sources(args.validation), size=256, batch_size=16, seed=args.seed
        )
    trainer = Trainer(
        model_config,
        crops,
        args.out,
        config,
        name=args.name or args.preset,
        validation=validation,
        init=init,
        device=args.device,
    )
    tokenizer = trainer.fit()
    facts = {
        "tokenizer": str(args.out),
        "fingerprint": tokenizer.fingerprint,
        **dataclasses.asdict(config),
    }
    print(json.dumps(facts))
    return 0
