"""``vqtok encode``: images or sounds to a token dataset."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vqtok.cli.common import (
    DEFAULT_TOKENIZERS,
    NOUNS,
    add_job_arguments,
    load_tokenizer,
    plural,
    positive,
    progress_bar,
    say,
    say_each,
)
from vqtok.cli.jobs import (
    add_scale_arguments,
    everywhere,
    local_device,
    make_engine,
    note_few_shards,
    report_dataset,
)
from vqtok.errors import UsageError

if TYPE_CHECKING:
    from vqtok.media import Listing

HELP = "encode images or sounds into a token dataset"
INTERRUPTED = "run the same command again to go on from here"
EXAMPLES = """\
examples:
  vqtok encode photos/ tokens/
  vqtok encode photos/ tokens/                     (again: goes on where it was killed)
  vqtok encode photos/ tokens/ --pack entropy
  vqtok encode photos/ tokens/ --pack entropy --rate-weight 0.5
  vqtok encode music/ tokens/ --num-codebooks 4
  vqtok encode mixed/ sounds/ --tokenizer audio
  vqtok encode 'shards/*.tar' tokens/ --num-codebooks 2 --shard-size 5000
  vqtok encode list.txt tokens/ --tokenizer runs/mine --pack plain
  vqtok encode photos/ tokens/ --processes 8
  torchrun --nproc-per-node 8 --no-python vqtok encode photos/ tokens/ --device cuda
  sbatch --array=0-63 --wrap 'vqtok encode photos/ tokens/'
  vqtok encode photos/ tokens/ --engine ray

Images and sounds (wav, flac, ogg, opus, mp3, ...; with PyAV also m4a and video files) are found by
their extensions. A dataset holds one kind, that of its tokenizer: where SRC has both, --tokenizer
chooses, and files of the other kind are passed over.

OUT becomes a folder of safetensors files and a manifest. Inputs that cannot be read are listed in
OUT/errors.jsonl and make the exit code 1; the dataset is complete without them. A list or a .tar
that is missing, truncated or damaged itself is refused before anything is written. The same command
always gives the same bytes, whatever the number of workers and however often it was killed.

Started by torchrun or as a SLURM array job, each process encodes its share of the shards, and the
last one to be done makes the dataset; OUT must be on a file system that all share. A job may go on
with another number of processes.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options of ``vqtok encode``."""
    parser.add_argument(
        "source",
        metavar="SRC",
        help="a folder (with all below it), a glob in quotes, a file, a .txt list of files, or a "
        "webdataset .tar",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder of the token dataset")
    parser.add_argument(
        "--tokenizer", help="name or folder (default: photo for images, audio for sounds)"
    )
    parser.add_argument(
        "--num-codebooks",
        type=positive,
        metavar="Q",
        help="use the first Q codebooks only: fewer bits, less quality (default: all)",
    )
    parser.add_argument(
        "--pack",
        choices=["bits", "plain", "entropy"],
        default="bits",
        help="bits: as few bits per code as the codebook needs; plain: whole 8, 16 or 32 bits; "
        "entropy: the smallest files, coded by what the codes around make likely "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--rate-weight",
        type=float,
        default=0.0,
        metavar="X",
        help="with --pack entropy, spend bits where they matter: a bit is worth X percent of the "
        "variance of the first codebook in squared error; for photos try 0.05 to 0.3, for sounds "
        "take fewer codebooks instead (default: 0, the nearest codes)",
    )
    parser.add_argument(
        "--shard-size",
        type=positive,
        metavar="N",
        help="inputs per file (default: 1000 images or 100 sounds)",
    )
    add_scale_arguments(parser)
    add_job_arguments(parser, "read files")


def run(args: argparse.Namespace) -> int:
    """Encode; prints what came of it."""
    from vqtok.media import scan_sources
    from vqtok.pipeline import Share, encode_dataset, make_plan

    share = Share.of_environment() if args.share is None else Share.parse(args.share)
    device = local_device(args.device)
    tokenizer = None
    if args.tokenizer is not None:
        tokenizer = load_tokenizer(args.tokenizer, device, args.precision)
    listing = scan_sources(args.source, tokenizer.modality if tokenizer else None)
    name = args.tokenizer or _default_tokenizer(args.source, listing)
    if tokenizer is None:
        tokenizer = load_tokenizer(name, device, args.precision)
    if listing.skipped:
        kinds = ", ".join(
            f"{count} {ext or 'without extension'}" for ext, count in listing.skipped.items()
        )
        say(f"passed over {plural(sum(listing.skipped.values()), 'file')} ({kinds})")
    plan = make_plan(
        listing.sources,
        tokenizer,
        num_codebooks=args.num_codebooks,
        packing=args.pack,
        rate_weight=args.rate_weight,
        shard_size=args.shard_size,
    )
    if plan.header.packing == "entropy" and not plan.header.prior:
        say(f"{name} has no prior: its codes are coded with the adaptive model")
    load = partial(load_tokenizer, everywhere(name), device, args.precision)
    engine = make_engine(args, load, device)
    note_few_shards(plan, args, share)
    total = sum(len(plan.task_sources(task)) for task in share.tasks(plan.num_tasks))
    with progress_bar(total, "encode") as progress:
        report = encode_dataset(
            plan,
            tokenizer,
            args.out,
            workers=args.workers,
            progress=progress,
            engine=engine,
            share=share,
        )
    say_each("noted", report.notes.lines())
    return report_dataset(report, args.out, share, args.json)


def _default_tokenizer(source: str, listing: Listing) -> str:
    counts = listing.modalities
    if len(counts) > 1:
        names = " or ".join(f"--tokenizer {DEFAULT_TOKENIZERS[kind]}" for kind in counts)
        found = " and ".join(plural(count, NOUNS[kind]) for kind, count in counts.items())
        raise UsageError(
            f"{source} holds {found}, and a dataset holds one kind: choose with {names}"
        )
    return DEFAULT_TOKENIZERS[next(iter(counts))]
