"""``vqtok export``: a token dataset to another format."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from vqtok.cli.common import (
    existing_tokens,
    plural,
    positive,
    progress_bar,
    say,
    say_each,
    show,
)

HELP = "export a token dataset for training code"
INTERRUPTED = "nothing was written"
TARGETS = ("parquet", "hf", "megatron", "litdata", "mds", "webdataset", "npy")
EXAMPLES = """\
examples:
  vqtok export tokens/ out/ --to hf             load_dataset("out/", streaming=True)
  vqtok export tokens/ out/ --to parquet        part-00000.parquet, ...
  vqtok export tokens/ out/ --to megatron       --data-path out/tokens
  vqtok export tokens/ out/ --to megatron --layout emu3
  vqtok export tokens/ out/ --to litdata        StreamingDataset("out/")
  vqtok export tokens/ out/ --to mds            streaming.LocalDataset("out/")
  vqtok export tokens/ out/ --to webdataset     shard-000000.tar, ...
  vqtok export tokens/ out/ --to npy            one file per sample, named after its source

Samples keep their place in the dataset (index), source and metadata; where a format has no room
for these they are in a .jsonl file beside it. vqtok-export.json says which tokenizer made them.
OUT appears when it is complete. Samples that are damaged are reported and make the exit code 1.
Without --layout arrays are codes [h, w, Q] of images, [t, c, Q] of sounds; megatron, which has
tokens only, then gets them position after position, codebook q counted from the sum of the sizes of
those before. parquet and hf need pyarrow: pip install 'vqtok[export]'.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options of ``vqtok export``."""
    parser.add_argument(
        "tokens", metavar="TOKENS", type=Path, help="a token dataset, or one of its shards"
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder of the exported dataset")
    parser.add_argument("--to", required=True, choices=TARGETS, help="format of OUT")
    parser.add_argument(
        "--layout",
        metavar="NAME|FILE",
        help="export the tokens of a sequence layout instead of codes: flat, raster, chameleon, "
        "emu3, delay or musicgen, or a JSON file of a layout or vocabulary",
    )
    parser.add_argument(
        "--num-codebooks",
        type=positive,
        metavar="Q",
        help="export the first Q codebooks only (default: all)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export in OUT")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Export; prints what came of it."""
    from vqtok.exporters import export_dataset, find_layout
    from vqtok.tokens import TokenReader

    tokens = TokenReader(existing_tokens(args.tokens))
    layout = None
    if args.layout is not None:
        sizes = tokens.header.codebook_sizes[: args.num_codebooks]
        layout = find_layout(args.layout, tokens.header, sizes)
    with progress_bar(len(tokens), "export") as progress:
        report = export_dataset(
            tokens,
            args.out,
            args.to,
            layout=layout,
            num_codebooks=args.num_codebooks,
            overwrite=args.overwrite,
            progress=progress,
        )
    say_each("not exported", report.failures)
    for remark in report.remarks:
        say(remark)
    if args.json:
        facts = {"out": str(args.out), "exported": report.exported, "failures": report.failures}
        print(json.dumps(facts))
    else:
        lost = f", {len(report.failures):,} lost" if report.failures else ""
        show(f"{args.out}: {plural(report.exported, 'sample')} exported{lost}")
    return 1 if report.failures else 0
