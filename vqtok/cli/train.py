"""``vqtok train``: a tokenizer from images or sounds, or an autoencoder from anything."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqtok.cli.common import check_device, plural, positive, say, show
from vqtok.cli.data_options import add_data_options

if TYPE_CHECKING:
    from vqtok.autoencoders import Autoencoder
    from vqtok.training import AudioCrops, PhotoCrops, Task

_VARIANTS = (
    "vanilla",
    "undercomplete",
    "convolutional",
    "sparse          k, corruption, activity (top_k, l1, kl_rho)",
    "denoising       corruption",
    "contractive     weight",
    "vae             beta, warmup, free_bits",
    "beta-vae        beta, warmup",
    "vqvae           codebook_size, positions, commitment",
    "seq2seq-rnn     length, latents, bottleneck (identity, gaussian, top_k, vq, fsq), decoder,",
    "                depth, cell (gru, lstm); of texts (.txt) lines=true; series: .npy, .npz, .csv",
    "seq2seq-transformer   the same, heads instead of cell",
    "seq2seq-conv    the same, without cell: each code is about a stretch of the sequence",
)
HELP = "train a tokenizer on images or sounds, or an autoencoder on arrays"
INTERRUPTED = "run the same command again to go on from the last save"
EXAMPLES = (
    """\
examples:
  vqtok train photo --data photos/ --out runs/mine --steps 20000
  vqtok train photo --data photos/ --out runs/mine --steps 20000     (again: resumes)
  vqtok train photo --data photos/ --out runs/more --init runs/mine
  vqtok train audio --data sounds/ --out runs/voice --validation others/
  vqtok train audio --data sounds/ --out runs/live --set causal=true
  vqtok encode photos/ tokens/ --tokenizer runs/mine
  vqtok train denoising --data table.csv --out runs/table --contamination 0.05
  vqtok train beta-vae --data shapes.npz --out runs/shapes --set stack=conv --set beta=6
  vqtok train vqvae --data icons/ --size 32 --out runs/icons --set stack=conv --set noise=0.2
  vqtok train seq2seq-rnn --data book.txt --out runs/book --set length=32 --set bottleneck=vq
  vqtok inspect runs/shapes --page shapes.html

tokenizers and what --set may change of them:
  photo-lm        edges
  audio           block (conv, attention, recurrent), causal (false, true)
  audio-tiny      causal

autoencoders and what --set may change of them:
  """
    + "\n  ".join(_VARIANTS)
    + """
all of them: code_size, hidden, stack (mlp, conv), scaling (standardize, span, none), likelihood,
noise, masked
"""
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options of ``vqtok train``."""
    parser.add_argument(
        "preset",
        metavar="PRESET",
        help="the model: a tokenizer (photo, photo-lm, photo-tiny, audio, audio-tiny) or an "
        "autoencoder (see below)",
    )
    parser.add_argument(
        "--data",
        required=True,
        help="images or sounds: a folder, a glob, a text list of paths, or a .tar; of autoencoders "
        "also a .csv, .npy or .npz",
    )
    parser.add_argument(
        "--out", required=True, type=Path, help="the run's folder; a run in it is resumed"
    )
    parser.add_argument("--steps", type=positive, help="(default: 20,000; of autoencoders 2,000)")
    parser.add_argument(
        "--validation", metavar="DATA", help="data to score at checkpoints, never trained on"
    )
    parser.add_argument(
        "--init", metavar="TOKENIZER", help="start from these weights instead of random ones"
    )
    parser.add_argument(
        "--name", help="the model's name (default: that of --out; of autoencoders PRESET)"
    )
    parser.add_argument("--batch-size", type=positive, help="(default: 16; of autoencoders 128)")
    parser.add_argument(
        "--crop",
        type=positive,
        help="side of a crop in pixels (default: 128), or samples of an excerpt (28,800)",
    )
    parser.add_argument(
        "--learning-rate", type=float, help="(default: 0.001; of autoencoders 0.002)"
    )
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument(
        "--save-every",
        type=positive,
        metavar="STEPS",
        help="(default: 1,000; of autoencoders: end)",
    )
    parser.add_argument(
        "--adversary",
        action="store_true",
        help="sounds: train against a discriminator, as a last phase with --init",
    )
    parser.add_argument("--no-autocast", action="store_true", help="train in float32, not bfloat16")
    parser.add_argument("--device", default="cpu", help="(default: %(default)s)")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: all cores)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the model"
    )
    group = parser.add_argument_group("autoencoders")
    add_data_options(group)
    group.add_argument(
        "--held-out",
        type=float,
        metavar="SHARE",
        help="share of the data to judge by, never trained on (default: 0.1)",
    )
    group.add_argument(
        "--contamination",
        type=float,
        metavar="SHARE",
        help="calibrate the threshold below which a score is an anomaly to this share of the data",
    )


def run(args: argparse.Namespace) -> int:
    """Train; prints what came of it."""
    import torch

    from vqtok.autoencoders import PRESETS, VARIANTS
    from vqtok.cli import train_variant
    from vqtok.errors import UsageError

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    check_device(args.device)
    if args.out.exists() and not args.out.is_dir():
        raise UsageError(f"--out {args.out} is a file, not a folder")
    if args.preset in VARIANTS:
        return train_variant.run(args)
    if args.preset not in PRESETS:
        raise UsageError(
            f"unknown preset {args.preset!r}, expected one of {', '.join([*PRESETS, *VARIANTS])}"
        )
    _check_options(args)
    return _train_tokenizer(args)


def _check_options(args: argparse.Namespace) -> None:
    """UsageError for an option that would do nothing, or data that no tokenizer takes."""
    from vqtok.errors import UsageError

    for option in ("key", "size", "held_out", "contamination"):
        if getattr(args, option) is not None:
            name = option.replace("_", "-")
            raise UsageError(
                f"--{name} belongs to autoencoders, not to the tokenizer {args.preset}"
            )
    for data in (args.data, args.validation):
        if data is not None and Path(data).suffix.lower() in (".csv", ".npy", ".npz"):
            kind = "sounds" if args.preset.startswith("audio") else "images"
            raise UsageError(
                f"{data} is an array; {args.preset} is trained on {kind}: a folder, a glob, a text "
                "list of paths, or a .tar"
            )


def _train_tokenizer(args: argparse.Namespace) -> int:
    from vqtok.autoencoders import build_autoencoder, preset_config
    from vqtok.cli.train_variant import settings_of
    from vqtok.errors import UsageError
    from vqtok.tokenizer import Tokenizer
    from vqtok.training import TrainConfig, Trainer
    from vqtok.training.ranks import joined, this_rank
    from vqtok.training.warm_start import load_weights

    try:
        model_config = preset_config(args.preset, **settings_of(args.set))
    except ValueError as error:
        raise UsageError(str(error)) from error
    model = build_autoencoder(model_config)
    crop, per_latent = _crop(args, model)
    config = TrainConfig(
        steps=args.steps or 20_000,
        batch_size=args.batch_size or 16,
        crop=crop,
        learning_rate=1e-3 if args.learning_rate is None else args.learning_rate,
        autocast=not args.no_autocast,
        seed=args.seed,
        save_every=args.save_every or 1000,
    )
    if crop % per_latent:
        raise UsageError(f"--crop must be a multiple of {per_latent}, not {crop}")
    init = None
    if args.init is not None:
        init = Tokenizer.from_pretrained(args.init)
        load_weights(model, init.autoencoder)  # fails before the data are read
    validation = None
    if args.validation is not None:
        sizes = (
            {"size": 96_000, "batch_size": 12}
            if _is_sound(model)
            else {"size": 256, "batch_size": 16}
        )
        validation = _crops(args.validation, model, seed=0, **sizes)
    crops = _crops(args.data, model, size=crop, batch_size=config.batch_size, seed=args.seed)
    for skipped in crops.skipped:
        say(f"left out {skipped}")
    with joined(args.device) as device:
        trainer = Trainer(
            model_config,
            crops,
            args.out,
            config,
            name=args.name or args.out.resolve().name,
            task=_task(args, model),
            validation=validation,
            init=init,
            device=device,
        )
        tokenizer = trainer.fit()
        if this_rank():
            return 0
    if args.json:
        facts = {"out": str(args.out), "name": tokenizer.name, "steps": config.steps}
        print(json.dumps({**facts, "fingerprint": tokenizer.fingerprint}))
    else:
        steps = plural(config.steps, "step")
        show(f"{args.out} is trained: {steps}; {tokenizer.fingerprint[:12]}")
    return 0


def _is_sound(model: Autoencoder) -> bool:
    return getattr(model.encoder, "modality", "image") == "audio"


def _task(args: argparse.Namespace, model: Autoencoder) -> Task:
    from vqtok.errors import UsageError
    from vqtok.training import PhotoTask, SoundAdversary, SoundTask

    if _is_sound(model):
        return SoundTask(SoundAdversary() if args.adversary else None)
    if args.adversary:
        raise UsageError("--adversary is for sounds; images are trained without one")
    return PhotoTask()


def _crop(args: argparse.Namespace, model: Autoencoder) -> tuple[int, int]:
    """The size of training crops, and of what one latent stands for: pixels or samples."""
    encoder: Any = model.encoder
    if _is_sound(model):
        return args.crop or 28_800, encoder.hop
    return args.crop or 128, encoder.downsample


def _crops(
    data: str, model: Autoencoder, *, size: int, batch_size: int, seed: int
) -> AudioCrops | PhotoCrops:
    """Crops of images or of sounds, as the model takes them."""
    from vqtok.media.listing import list_sources
    from vqtok.training import AudioCrops, PhotoCrops

    if not _is_sound(model):
        return PhotoCrops(list_sources(data), size=size, batch_size=batch_size, seed=seed)
    encoder: Any = model.encoder
    return AudioCrops(
        list_sources(data, "audio"),
        sample_rate=encoder.sample_rate,
        size=size,
        batch_size=batch_size,
        seed=seed,
    )
