"""``vqtok sample``: codes drawn from a prior, decoded."""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqtok.cli.common import NOUNS, load_tokenizer, plural, positive, progress_bar, show
from vqtok.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vqtok.tokenizer import Tokenizer
    from vqtok.tokens.prior import Prior

HELP = "draw images or sounds from a tokenizer's prior"
EXAMPLES = """\
examples:
  vqtok sample photo drawn/ --number 4 --size 256x384 --seed 1
  vqtok sample audio drawn/ --seconds 5
  vqtok sample runs/mine drawn/ --temperature 0.8

The prior is made for compression: it sees a few codes around the one it draws, so what comes out is
textures, or murmur, without objects, words or tunes. The draws show what a tokenizer and its prior
have learned. The same seed gives the same codes on every machine.
"""
DEFAULT_SIZE = (256, 256)
DEFAULT_SECONDS = 4.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options of ``vqtok sample``."""
    parser.add_argument("tokenizer", metavar="TOKENIZER", help="name or folder, with a prior")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder of the PNG or WAV files")
    parser.add_argument("--number", type=positive, default=1, metavar="N", help="(default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the first (default: %(default)s)")
    parser.add_argument("--size", metavar="HxW", help="of images, in pixels (default: 256x256)")
    parser.add_argument("--seconds", type=float, help="of sounds (default: 4)")
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        metavar="T",
        help="below 1: likelier codes, smoother results (default: 1)",
    )
    parser.add_argument(
        "--num-codebooks", type=positive, metavar="Q", help="the first Q only (default: all)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Draw, decode and write; prints where."""
    import numpy as np

    tokenizer = load_tokenizer(args.tokenizer)
    prior = tokenizer.prior
    if prior is None:
        raise UsageError(
            f"{args.tokenizer} has no prior to draw from; "
            f"vqtok train-prior {args.tokenizer} --data DIR makes one"
        )
    if args.seed < 0:
        raise UsageError(f"--seed must not be negative, not {args.seed}")
    if args.out.exists() and not args.out.is_dir():
        raise UsageError(f"{args.out} is a file, not a folder")
    used = args.num_codebooks or tokenizer.num_codebooks
    if used > tokenizer.num_codebooks:
        raise UsageError(f"--num-codebooks: {args.tokenizer} has {tokenizer.num_codebooks}")
    if not 0.1 <= args.temperature <= 10:
        raise UsageError(f"--temperature must be from 0.1 to 10, not {args.temperature}")
    drawn = tempered(prior, args.temperature)
    size = _size(args, tokenizer)
    args.out.mkdir(parents=True, exist_ok=True)
    files = []
    with progress_bar(args.number, "sample") as progress:
        for seed in range(args.seed, args.seed + args.number):
            rng = np.random.default_rng(seed)
            codes = drawn.sample(_dims(tokenizer, size), used, rng)
            files.append(_write(args.out / f"{tokenizer.name}-{seed}", codes, tokenizer, size))
            progress(1)
    if args.json:
        print(json.dumps({"out": str(args.out), "files": [file.name for file in files]}))
    else:
        show(f"{args.out}: {plural(args.number, NOUNS[tokenizer.modality])}")
    return 0


def tempered(prior: Prior, temperature: float) -> Prior:
    """The prior with every probability raised to 1 / temperature (and scaled to a sum of 1).

    It is an integer prior too: outputs are multiplied by rounding their weights and by shifts.
    """
    import numpy as np

    from vqtok.tokens.prior import Prior

    if temperature == 1:
        return prior
    halvings = math.ceil(-math.log2(temperature))
    factor = 1 / temperature / 2**halvings  # in (1/2, 1], so that weights still fit
    tensors = dict(prior.tensors)
    for q in range(len(prior.codebook_sizes)):
        layers = [name for name in ("output", "groups") if f"{q}.{name}.weight" in tensors]
        for name in layers:
            for part in (f"{q}.{name}.weight", f"{q}.{name}.bias"):
                tensors[part] = np.rint(tensors[part] * factor).astype(tensors[part].dtype)
        shifts = tensors[f"{q}.shifts"].copy()
        shifts[-len(layers) :] -= halvings
        tensors[f"{q}.shifts"] = shifts.clip(0, 24)
    return Prior(
        tensors,
        codebook_sizes=prior.codebook_sizes,
        modality=prior.modality,
        tokenizer=prior.tokenizer,
        training=prior.training,
    )


def _size(args: argparse.Namespace, tokenizer: Tokenizer) -> tuple[int, int] | float:
    """Height and width in pixels, or seconds."""
    from vqtok.media.images import MAX_PIXELS

    if tokenizer.modality == "audio":
        if args.size is not None:
            raise UsageError("--size is for images; the length of sounds is --seconds")
        seconds = DEFAULT_SECONDS if args.seconds is None else args.seconds
        if not 0 < seconds <= 3600:
            raise UsageError(f"--seconds must be above 0 and at most 3600, not {seconds}")
        return seconds
    if args.seconds is not None:
        raise UsageError("--seconds is for sounds; the size of images is --size HxW")
    if args.size is None:
        return DEFAULT_SIZE
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", args.size)
    if not match:
        raise UsageError(f"--size must be HEIGHTxWIDTH in pixels, such as 256x384, not {args.size}")
    height, width = int(match[1]), int(match[2])
    if height * width > MAX_PIXELS:
        raise UsageError(f"--size {args.size}: more than {MAX_PIXELS:,} pixels are not drawn")
    return height, width


def _dims(tokenizer: Any, size: tuple[int, int] | float) -> tuple[int, int]:
    if isinstance(size, tuple):
        return -(-size[0] // tokenizer.downsample), -(-size[1] // tokenizer.downsample)
    return tokenizer.frames(max(1, round(size * tokenizer.sample_rate))), 1


def _write(
    path: Path, codes: NDArray[np.int64], tokenizer: Any, size: tuple[int, int] | float
) -> Path:
    import torch

    from vqtok.media import write_audio, write_image

    batch = torch.from_numpy(codes)[None]
    if isinstance(size, tuple):
        path = path.with_name(path.name + ".png")
        write_image(path, tokenizer.decode(batch, size=size)[0].permute(1, 2, 0).numpy())
    else:
        path = path.with_name(path.name + ".wav")
        write_audio(path, tokenizer.decode(batch)[0].numpy(), tokenizer.sample_rate)
    return path
