"""``vqtok train``: a tokenizer from a folder of images."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from vqtok.cli.common import check_device, positive, say, show

HELP = "train a tokenizer on images"
INTERRUPTED = "run the same command again to go on from the last save"
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
    parser.add_argument("--steps", type=positive, default=20_000, help="(default: %(default)s)")
    parser.add_argument(
        "--validation", metavar="DATA", help="images to score at checkpoints, never trained on"
    )
    parser.add_argument(
        "--init", metavar="TOKENIZER", help="start from these weights instead of random ones"
    )
    parser.add_argument("--name", help="the tokenizer's name (default: that of --out)")
    parser.add_argument("--batch-size", type=positive, default=16, help="(default: %(default)s)")
    parser.add_argument(
        "--crop", type=positive, default=128, help="side of a crop in pixels (default: %(default)s)"
    )
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--save-every", type=positive, default=1000, metavar="STEPS")
    parser.add_argument("--no-autocast", action="store_true", help="train in float32, not bfloat16")
    parser.add_argument("--device", default="cpu", help="(default: %(default)s)")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: all cores)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Train; prints what came of it."""
    import torch

    from vqtok.autoencoders import build_autoencoder, preset_config
    from vqtok.errors import UsageError
    from vqtok.media.sources import list_sources
    from vqtok.tokenizer import Tokenizer
    from vqtok.training import PhotoCrops, TrainConfig, Trainer

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    check_device(args.device)
    try:
        model_config = preset_config(args.preset)
    except ValueError as error:
        raise UsageError(str(error)) from error
    config = TrainConfig(
        steps=args.steps,
        batch_size=args.batch_size,
        crop=args.crop,
        learning_rate=args.learning_rate,
        autocast=not args.no_autocast,
        seed=args.seed,
        save_every=args.save_every,
    )
    if args.out.exists() and not args.out.is_dir():
        raise UsageError(f"--out {args.out} is a file, not a folder")
    downsample = build_autoencoder(model_config).encoder.downsample
    if args.crop % downsample:
        raise UsageError(f"--crop must be a multiple of {downsample}, not {args.crop}")
    init = None
    if args.init is not None:
        init = Tokenizer.from_pretrained(args.init)
        if init.autoencoder.config != model_config:
            raise UsageError(f"--init {args.init} is not a model of the preset {args.preset}")
    crops = PhotoCrops(
        list_sources(args.data), size=args.crop, batch_size=args.batch_size, seed=args.seed
    )
    for skipped in crops.skipped:
        say(f"left out {skipped}")
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
        name=args.name or args.out.resolve().name,
        validation=validation,
        init=init,
        device=args.device,
    )
    tokenizer = trainer.fit()
    if args.json:
        facts = {"out": str(args.out), "name": tokenizer.name, "steps": config.steps}
        print(json.dumps({**facts, "fingerprint": tokenizer.fingerprint}))
    else:
        show(f"{args.out} is trained: {config.steps:,} steps; {tokenizer.fingerprint[:12]}")
    return 0
