"""``vqtok decode``: a token dataset to image files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from vqtok.cli.common import (
    add_job_arguments,
    existing_tokens,
    load_tokenizer,
    plural,
    positive,
    progress_bar,
    say_each,
    show,
)
from vqtok.errors import UsageError

if TYPE_CHECKING:
    from vqtok.tokens import TokenReader

HELP = "decode a token dataset into image files"
INTERRUPTED = "run the same command with --overwrite to begin again"
EXAMPLES = """\
examples:
  vqtok decode tokens/ decoded/
  vqtok decode tokens/ decoded/ --format webp --quality 90
  vqtok decode tokens/ decoded/ --num-codebooks 1
  vqtok decode tokens/shard-00003.safetensors decoded/ --tokenizer runs/mine

Files are named after their sources; nothing is written outside OUT. Samples that are damaged are
reported and make the exit code 1; all others are decoded. A run that was killed may leave hidden
temporary files in OUT; --overwrite begins again there.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options of ``vqtok decode``."""
    parser.add_argument(
        "tokens", metavar="TOKENS", type=Path, help="a token dataset, or one of its shards"
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder of the images")
    parser.add_argument(
        "--format", choices=["png", "jpg", "webp"], default="png", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--quality",
        type=positive,
        metavar="1-100",
        help="of jpg and webp (default: 95 for jpg, lossless for webp)",
    )
    parser.add_argument(
        "--tokenizer", help="name or folder (default: the bundled one that the tokens name)"
    )
    parser.add_argument(
        "--num-codebooks",
        type=positive,
        metavar="Q",
        help="decode from the first Q codebooks only (default: all)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="write into a folder that holds files already"
    )
    add_job_arguments(parser, "compress and write images")


def run(args: argparse.Namespace) -> int:
    """Decode; prints what came of it."""
    from vqtok.pipeline import decode_dataset
    from vqtok.tokenizer import ImageTokenizer
    from vqtok.tokens import TokenReader

    if args.quality is not None and args.format == "png":
        raise UsageError("--quality: png is lossless and takes none; choose --format jpg or webp")
    if args.quality is not None and args.quality > 100:
        raise UsageError(f"--quality must be 1 to 100, not {args.quality}")
    tokens = TokenReader(existing_tokens(args.tokens))
    tokenizer = load_tokenizer(args.tokenizer or _bundled_name(tokens), args.device)
    if not isinstance(tokenizer, ImageTokenizer):
        raise UsageError(f"tokenizer {tokenizer.name!r} is for modality {tokenizer.modality!r}")
    with progress_bar(len(tokens), "decode") as progress:
        report = decode_dataset(
            tokens,
            tokenizer,
            args.out,
            image_format=args.format,
            quality=args.quality,
            num_codebooks=args.num_codebooks,
            workers=args.workers,
            overwrite=args.overwrite,
            progress=progress,
        )
    say_each("not decoded", report.failures)
    if args.json:
        facts = {"out": str(args.out), "decoded": report.decoded, "failures": report.failures}
        print(json.dumps(facts))
    else:
        lost = f", {len(report.failures):,} lost" if report.failures else ""
        show(f"{args.out}: {plural(report.decoded, 'image')} decoded{lost}")
    return 1 if report.failures else 0


def _bundled_name(tokens: TokenReader) -> str:
    """The tokenizer that the tokens name, if it is one of ours: a file must not choose paths."""
    from vqtok.tokenizer import bundled_names

    name = tokens.header.tokenizer_name
    if name not in bundled_names():
        raise UsageError(
            f"{tokens.path} was made by tokenizer {name!r}, which is not bundled; "
            "name its folder with --tokenizer"
        )
    return name
