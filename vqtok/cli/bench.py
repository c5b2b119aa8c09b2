"""``vqtok bench``: compression ratio against quality."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqtok.cli.common import (
    DEFAULT_TOKENIZERS,
    NOUNS,
    plural,
    positive,
    progress_bar,
    say,
    say_each,
    show,
)
from vqtok.errors import UsageError

if TYPE_CHECKING:
    from vqtok.media import Listing

HELP = "compare rates and qualities of tokenizers and formats on your files"
INTERRUPTED = "run the same command with --resume to go on from here"
EXAMPLES = """\
examples:
  vqtok bench photos/ --out report/ --quick
  vqtok bench kodak/ --out report/ --published kodak
  vqtok bench photos/ --out report/ --tokenizers photo,runs/mine --baselines jpeg,webp,avif,jxl,jp2
  vqtok bench speech/ --out report/ --tokenizers audio --baselines opus,mp3,codec2 --processes 4
  vqtok bench photos/ --out report/ --resume       (goes on where it was stopped)
  vqtok bench photos/ --out report/ --weights-dir weights/ --metrics psnr,lpips,rfid
  vqtok bench --speed

OUT becomes a folder with index.html (a page to look at), results.json and results.csv; OUT/work
keeps what was coded. Rates are those of whole files, headers included: every sample of a tokenizer
as a token file of its own, decoded from that file, in each packing tier and with each number of
codebooks. Means are over the samples that every codec could code; what failed is named and makes
the exit code 1. All but times and memory is the same on every run.

Metrics of images: psnr, psnr_y, ssim, ms_ssim, ssimulacra2, effnet_dist; with weights of their own
lpips (alexnet-owt-7be5be79.pth of torchvision and alex.pth of the package lpips) and rfid
(inception-2015-12-05.pt, TorchScript). Of sounds: mel, stft, spectrum, si_sdr, pesq, stoi,
visqol.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options of ``vqtok bench``."""
    parser.add_argument(
        "data",
        metavar="DATA",
        nargs="?",
        help="images or sounds: a folder, a glob in quotes, a file, a .txt list or a .tar",
    )
    parser.add_argument("--out", type=Path, metavar="OUT", help="folder of the report")
    parser.add_argument(
        "--tokenizers",
        type=_names,
        metavar="A,B",
        help="names or folders, or none (default: photo for images, audio for sounds)",
    )
    parser.add_argument(
        "--baselines",
        type=_names,
        metavar="A,B",
        help="of images jpeg, webp, avif, jp2, jxl; of sounds opus, mp3, codec2; or none (default: "
        "those that work here)",
    )
    parser.add_argument(
        "--anchor",
        metavar="CODEC",
        help='what the others are compared with, such as jpeg or "photo bits" (default: the first '
        "baseline)",
    )
    parser.add_argument(
        "--metrics",
        type=_names,
        metavar="A,B",
        help="measures of quality (default: all below)",
    )
    parser.add_argument(
        "--weights-dir",
        type=Path,
        metavar="DIR",
        help="folder with the weights of lpips and rfid",
    )
    parser.add_argument(
        "--published",
        action="append",
        default=[],
        metavar="FILE",
        help="draw published curves of a .json file too, as external; kodak: some that come with "
        "vqtok; may be repeated",
    )
    parser.add_argument(
        "--processes",
        type=positive,
        default=1,
        metavar="N",
        help="processes that work at a time, on a sample each (default: %(default)s)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="use what an earlier run left in OUT, and go on"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="pieces of a few samples, few settings and metrics: under a minute",
    )
    parser.add_argument(
        "--speed",
        action="store_true",
        help="instead, time lookup, encoding and decoding on this machine; no DATA, no OUT",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Bench; prints a table."""
    if args.speed:
        return _speed(args)
    if args.data is None or args.out is None:
        raise UsageError("DATA and --out are needed; or --speed alone")
    _check_out(args.out, args.resume)
    from vqtok.bench.report import write_report
    from vqtok.bench.run import run_bench
    from vqtok.cli.bench_table import summary_json, summary_lines

    bench, listing, notes = _prepare(args)
    from vqtok.bench.inputs import QUICK_SAMPLES

    total = len(listing.sources)
    with progress_bar(min(total, QUICK_SAMPLES) if args.quick else total, "bench") as progress:
        report = run_bench(
            bench,
            listing.sources,
            data=Path(args.data).name or args.data,
            anchor=_anchor(args, bench.lineup.baselines),
            published=args.published,
            processes=args.processes,
            progress=progress,
            notes=notes,
        )
    results = report.results
    results.save(args.out)
    write_report(results, report.media, args.out / "index.html")
    say_each("not read", [error for _, error in report.unread])
    say_each("failed", [f"{each.codec}, {each.sample}: {each.error}" for each in results.failed])
    if args.json:
        print(json.dumps(summary_json(results, args.out)))
    else:
        show(*summary_lines(results), f"report: {args.out / 'index.html'}")
    return 1 if results.failed or report.unread else 0


def _prepare(args: argparse.Namespace) -> tuple[Any, Listing, list[str]]:
    from vqtok.bench import codecs, metrics
    from vqtok.bench.work import Bench
    from vqtok.media import scan_sources

    tokenizers = None if args.tokenizers is None else [n for n in args.tokenizers if n != "none"]
    modality = _modality_of(tokenizers[0]) if tokenizers else None
    listing = scan_sources(args.data, modality)
    if modality is None:
        modality = _modality_of_data(args.data, listing)
    if tokenizers is None:
        tokenizers = [DEFAULT_TOKENIZERS[modality]]
    notes: list[str] = []
    baselines = args.baselines
    if baselines is None:
        baselines, notes = codecs.available(modality)
    names = args.metrics
    if names is None:
        wanted = metrics.QUICK[modality] if args.quick else tuple(metrics.METRICS[modality])
        names, more = metrics.available(modality, wanted)
        notes += more
        if args.weights_dir is not None and modality == "image":
            names += metrics.WITH_WEIGHTS
    for note in notes:
        say(note)
    lineup = codecs.Lineup(
        modality,
        tuple(tokenizers),
        tuple(name for name in baselines if name != "none"),
        args.quick,
    )
    if not lineup.tokenizers and not lineup.baselines:
        raise UsageError("there is nothing to compare: neither tokenizers nor baselines")
    return Bench(lineup, tuple(names), args.weights_dir, args.out / "work"), listing, notes


def _speed(args: argparse.Namespace) -> int:
    given = [args.data, args.out, args.anchor, args.metrics, args.baselines, args.weights_dir]
    if any(each is not None for each in given) or args.quick or args.resume or args.published:
        raise UsageError("--speed takes --tokenizers and --json only")
    from vqtok.bench.speed import measure_speed
    from vqtok.training.provenance import provenance

    names = list(DEFAULT_TOKENIZERS.values()) if args.tokenizers is None else args.tokenizers
    facts = provenance()
    with progress_bar(3 + 2 * len(names), "speed") as progress:
        rows = []
        for row in measure_speed([name for name in names if name != "none"]):
            rows.append(row)
            progress(1)
    if args.json:
        print(json.dumps({"machine": facts, "speed": [asdict(row) for row in rows]}))
        return 0
    widths = [max(len(row.what) for row in rows), max(len(row.on) for row in rows)]
    show(f"{facts['machine']}, {facts['threads']} threads, torch {facts['torch']}")
    for row in rows:
        show(f"{row.what:{widths[0]}}  {row.on:{widths[1]}}  {row.per_second:10.3f} {row.unit}")
    return 0


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("no name in it")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise argparse.ArgumentTypeError(f"{min(twice)} is given twice")
    return names


def _check_out(out: Path, resume: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"--out {out}: a file is there")
    if (out / "work").is_dir():
        if not resume:
            raise UsageError(
                f"--out {out}: a bench is there; --resume goes on with it, or choose another folder"
            )
    elif any(out.iterdir()):
        raise UsageError(f"--out {out}: the folder holds other things; choose another")


def _modality_of(tokenizer: str) -> str:
    from vqtok.autoencoders.storage import read_config
    from vqtok.tokenizer import find_pretrained

    modality: str = read_config(find_pretrained(tokenizer), {"modality": str})["modality"]
    return modality


def _modality_of_data(data: str, listing: Listing) -> str:
    counts = listing.modalities
    if len(counts) > 1:
        what = " and ".join(plural(n, NOUNS[kind]) for kind, n in sorted(counts.items()))
        raise UsageError(f"{data} has {what}: say which with --tokenizers photo or audio")
    return next(iter(counts))


def _anchor(args: argparse.Namespace, baselines: Sequence[str]) -> str | None:
    if args.anchor is not None:
        anchor: str = args.anchor
        return anchor
    return baselines[0] if baselines else None
