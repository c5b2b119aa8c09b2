"""``vqtok decode``: a token dataset to image or sound files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from vqtok.cli.common import (
    NOUNS,
    add_job_arguments,
    existing_tokens,
    load_tokenizer,
    plural,
    positive,
    progress_bar,
    say,
    say_each,
    show,
)
from vqtok.errors import UsageError

if TYPE_CHECKING:
    from vqtok.tokens import TokenReader

HELP = "decode a token dataset into image or sound files"
LOSSLESS = ("png", "wav", "flac")
DEFAULT_FORMATS = {"image": "png", "audio": "wav"}
INTERRUPTED = "run the same command with --overwrite to begin again"
EXAMPLES = """\
examples:
  vqtok decode tokens/ decoded/
  vqtok decode tokens/ decoded/ --format webp --quality 90
  vqtok decode tokens/ decoded/ --num-codebooks 1
  vqtok decode sounds/ decoded/ --format flac
  vqtok decode tokens/shard-00003.safetensors decoded/ --tokenizer runs/mine

Images have their size, sounds their sample rate, channels and exact length. Formats are png, jpg
and webp for images; wav and flac (16 bits), ogg, opus and mp3 for sounds.

Files are named after their sources; nothing is written outside OUT. Samples that are damaged are
reported and make the exit code 1; all others are decoded. A run that was killed may leave hidden
temporary files in OUT; --overwrite begins again there.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options of ``vqtok decode``."""
    parser.add_argument(
        "tokens", metavar="TOKENS", type=Path, help="a token dataset, or one of its shards"
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder of the files")
    parser.add_argument(
        "--format",
        choices=["png", "jpg", "webp", "wav", "flac", "ogg", "opus", "mp3"],
        help="of the files (default: png for images, wav for sounds)",
    )
    parser.add_argument(
        "--quality",
        type=positive,
        metavar="1-100",
        help="of jpg, webp, ogg, opus and mp3 (default: 95 for jpg, lossless for webp)",
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
    add_job_arguments(parser, "write files")


def run(args: argparse.Namespace) -> int:
    """Decode; prints what came of it."""
    from vqtok.pipeline import decode_dataset
    from vqtok.tokens import TokenReader

    if args.quality is not None and args.quality > 100:
        raise UsageError(f"--quality must be 1 to 100, not {args.quality}")
    tokens = TokenReader(existing_tokens(args.tokens))
    file_format = args.format or DEFAULT_FORMATS[tokens.header.modality]
    if args.quality is not None and file_format in LOSSLESS:
        raise UsageError(f"--quality: {file_format} is lossless and takes none; see --format")
    name = args.tokenizer or _bundled_name(tokens)
    tokenizer = load_tokenizer(name, args.device, args.precision)
    with progress_bar(len(tokens), "decode") as progress:
        report = decode_dataset(
            tokens,
            tokenizer,
            args.out,
            file_format=file_format,
            quality=args.quality,
            num_codebooks=args.num_codebooks,
            workers=args.workers,
            overwrite=args.overwrite,
            progress=progress,
        )
    say_each("not decoded", report.failures)
    if report.clipped:
        values, sounds = sum(report.clipped), plural(len(report.clipped), "sound")
        say(f"{plural(values, 'value')} of {sounds} beyond full scale clipped")
    if args.json:
        facts = {"out": str(args.out), "decoded": report.decoded, "failures": report.failures}
        facts["clipped"] = sum(report.clipped)
        print(json.dumps(facts))
    else:
        noun = NOUNS[tokens.header.modality]
        lost = f", {len(report.failures):,} lost" if report.failures else ""
        show(f"{args.out}: {plural(report.decoded, noun)} decoded{lost}")
    return 1 if report.failures else 0


def _bundled_name(tokens: TokenReader) -> str:
    """The tokenizer that the tokens name, if it is one of ours: a file must not choose paths."""
    from vqtok.tokenizer import bundled_maker

    header = tokens.header
    try:
        maker = bundled_maker(header.tokenizer_name, header.tokenizer)
    except UsageError as error:
        raise UsageError(f"{tokens.path}: {error}") from error
    if maker is None:
        raise UsageError(
            f"{tokens.path} was made by tokenizer {header.tokenizer_name!r}, which is not bundled; "
            "name its folder with --tokenizer"
        )
    return maker
