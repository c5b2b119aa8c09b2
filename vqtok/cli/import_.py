"""``vqtok import``: published tokenizers as tokenizers of vqtok."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from vqtok.cli.common import positive, say, show
from vqtok.errors import UsageError

HELP = "turn the weights of a published tokenizer into a tokenizer"
EXAMPLES = """\
examples:
  vqtok import vq_ds16_c2i.pt llamagen/
  vqtok import downloads/encodec_24khz/ encodec/
  vqtok import hub:facebook/encodec_48khz encodec-stereo/
  vqtok encode photos/ tokens/ --tokenizer llamagen/

The family (VQGAN, ...) is recognised by the names and the shapes of the tensors; every tensor must
find its place. Pickled checkpoints are read for their tensors alone: no code in them runs.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options of ``vqtok import``."""
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a .safetensors, .pt, .pth, .ckpt or .bin file, a folder with weights and "
        "config.json, or hub:owner/name",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder of the new tokenizer")
    parser.add_argument(
        "--family", default="auto", help="of the checkpoint (default: go by names and shapes)"
    )
    parser.add_argument("--name", help="of the tokenizer (default: that of OUT)")
    parser.add_argument(
        "--compare",
        choices=("distance", "angle", "product"),
        help="how the VQGAN family finds the nearest code (default: as the model's own code does)",
    )
    parser.add_argument(
        "--pixels",
        choices=("unit", "signed"),
        help="what an image model's own code feeds it: unit 0..1, signed -1..1 (default: unit for "
        "MaskGIT and aMUSEd, else signed)",
    )
    parser.add_argument(
        "--sample-rate",
        type=positive,
        metavar="HZ",
        help="of a tokenizer of sound whose checkpoint does not tell it",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a tokenizer that is in OUT"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Import; prints what the tokenizer is."""
    out: Path = args.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        is_tokenizer = (out / "config.json").is_file() and (out / "model.safetensors").is_file()
        if not args.overwrite or not is_tokenizer:
            hint = "--overwrite replaces it" if is_tokenizer else "choose another"
            raise UsageError(f"{out} is there already; {hint}")
    from vqtok.importers import load

    given = {
        "compare": args.compare,
        "pixels": args.pixels,
        "sample_rate": args.sample_rate,
    }
    options = {key: value for key, value in given.items() if value is not None}
    name = args.name or out.resolve().name
    tokenizer = load(args.checkpoint, args.family, name=name, **options)
    tokenizer.save_pretrained(out)
    (out / "prior.safetensors").unlink(missing_ok=True)  # of the tokenizer that was there
    origin = tokenizer.training["imported"]
    facts = {
        "tokenizer": str(out),
        "family": origin["family"],
        "modality": tokenizer.modality,
        "codebook_sizes": list(tokenizer.codebook_sizes),
        "fingerprint": tokenizer.fingerprint,
    }
    if args.json:
        print(json.dumps(facts))
    else:
        show(*(f"{key:<15} {value}" for key, value in facts.items()))
        say(f"next: vqtok encode INPUT TOKENS --tokenizer {out}")
    return 0
