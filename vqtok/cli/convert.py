"""``vqtok convert``: codes in .npy files to a token dataset."""

from __future__ import annotations

import argparse
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vqtok.cli.common import add_workers_argument, load_tokenizer, positive, progress_bar
from vqtok.cli.jobs import add_scale_arguments, make_engine, note_few_shards, report_dataset
from vqtok.errors import UsageError

if TYPE_CHECKING:
    from vqtok.pipeline import ForeignCodes

HELP = "convert codes in .npy files into a token dataset"
INTERRUPTED = "run the same command again to go on from here"
EXAMPLES = """\
examples:
  vqtok convert codes/ tokens/ --name vq-16 --codebook-sizes 16384
  vqtok convert codes/ tokens/ --name vq-16 --codebook-sizes 16384 --axes hw --grid 16x16
  vqtok convert codes/ tokens/ --name encodec --codebook-sizes 1024,1024 --modality audio --axes q,t
  vqtok convert exported/ tokens/ --tokenizer photo

Each file holds an array of integers. Its last axes are the codes of one sample: by default h,w for
images and t for sounds, then q, the codebooks, unless there is one; with --tokenizer as vqtok
export --to npy makes them. --axes says otherwise: q,t is codebook after codebook, hw a grid in one
line. What the axes before these number (crops, a batch of one) are samples of their own. Files that
cannot be read, or have codes out of range, are listed in OUT/errors.jsonl. Like encode, the same
command goes on where it was killed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options of ``vqtok convert``."""
    parser.add_argument(
        "source",
        metavar="SRC",
        help="a folder (with all below it), a glob in quotes, a .npy file, a .txt list, or a .tar",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder of the token dataset")
    parser.add_argument("--name", help="of the tokenizer that made the codes")
    parser.add_argument(
        "--codebook-sizes", metavar="K,K,...", help="number of codes of each codebook"
    )
    parser.add_argument(
        "--tokenizer",
        help="the vqtok tokenizer that made the codes, instead of --name and --codebook-sizes: "
        "the dataset can then be decoded",
    )
    parser.add_argument(
        "--num-codebooks",
        type=positive,
        metavar="Q",
        help="with --tokenizer: there are the first Q codebooks only",
    )
    parser.add_argument(
        "--modality",
        choices=["image", "audio"],
        default=None,
        help="what the codes are of (default: image)",
    )
    parser.add_argument("--axes", metavar="A,A,...", help="the last axes: h,w,q  hw,q  t,c,q  ...")
    parser.add_argument("--grid", metavar="HxW", help="height and width of the axis hw")
    parser.add_argument(
        "--pack", choices=["bits", "plain", "entropy"], default="bits", help="see vqtok encode"
    )
    parser.add_argument(
        "--shard-size", type=positive, metavar="N", help="files per shard (default: 1000)"
    )
    add_scale_arguments(parser)
    add_workers_argument(parser, "read files")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Convert; prints what came of it."""
    from vqtok.media import scan_sources
    from vqtok.pipeline import Share, encode_dataset, make_plan
    from vqtok.pipeline.arrays import EXTENSIONS

    share = Share.of_environment() if args.share is None else Share.parse(args.share)
    codes = _codes(args)
    listing = scan_sources(args.source, extensions=EXTENSIONS)
    plan = make_plan(listing.sources, codes, packing=args.pack, shard_size=args.shard_size or 1000)
    engine = make_engine(args, partial(_same, codes), "cpu")
    note_few_shards(plan, args, share)
    total = sum(len(plan.task_sources(task)) for task in share.tasks(plan.num_tasks))
    with progress_bar(total, "convert") as progress:
        report = encode_dataset(
            plan,
            codes,
            args.out,
            workers=args.workers,
            progress=progress,
            engine=engine,
            share=share,
        )
    return report_dataset(report, args.out, share, args.json)


def _codes(args: argparse.Namespace) -> ForeignCodes:
    """What the files hold, by the options."""
    from vqtok.pipeline import ForeignCodes
    from vqtok.tokens.header import DIMS

    by_name = args.name is not None and args.codebook_sizes is not None
    if by_name == (args.tokenizer is not None):
        raise UsageError("say what made the codes: --name and --codebook-sizes, or --tokenizer")
    if args.tokenizer is not None:
        tokenizer = load_tokenizer(args.tokenizer)
        if args.name or args.codebook_sizes or args.modality not in (None, tokenizer.modality):
            raise UsageError("--tokenizer says name, codebook sizes and modality: drop the others")
        name, modality = tokenizer.name, tokenizer.modality
        sizes = tokenizer.codebook_sizes[: args.num_codebooks]
        if args.num_codebooks is not None and args.num_codebooks > len(sizes):
            raise UsageError(f"--num-codebooks {args.num_codebooks}: {name} has {len(sizes)}")
        fingerprint = tokenizer.fingerprint
    else:
        if args.num_codebooks is not None:
            raise UsageError("--num-codebooks goes with --tokenizer; --codebook-sizes counts them")
        name, modality, fingerprint = args.name, args.modality or "image", ""
        sizes = tuple(_numbers(args.codebook_sizes, ",", "--codebook-sizes"))
    axes = None if args.axes is None else tuple(re.split(r"[ ,]+", args.axes.strip()))
    if axes is None and args.tokenizer is not None:
        axes = (*DIMS[modality], "q")  # as vqtok export writes them
    grid = None
    if args.grid is not None:
        height, *width = _numbers(args.grid, "x", "--grid")
        if len(width) != 1:
            raise UsageError(f"--grid {args.grid}: say HxW, such as 16x16")
        grid = height, width[0]
    try:
        return ForeignCodes(name, sizes, modality, axes, grid, fingerprint)
    except ValueError as error:
        raise UsageError(f"--axes: {error}") from error


def _numbers(text: str, separator: str, option: str) -> list[int]:
    parts = text.split(separator)
    if not all(re.fullmatch(r"[1-9]\d{0,9}", part) for part in parts):
        raise UsageError(f"{option} {text}: say numbers from 1, with {separator!r} between them")
    return [int(part) for part in parts]


def _same(codes: ForeignCodes) -> ForeignCodes:
    return codes
