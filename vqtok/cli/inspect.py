"""``vqtok inspect``: what a token dataset, a tokenizer or an autoencoder is."""

from __future__ import annotations

import argparse
import json
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqtok.cli.common import SHOWN_ERRORS, is_dataset, plural, progress_bar, say_each, show
from vqtok.cli.data_options import add_data_options
from vqtok.cli.inspect_autoencoder import autoencoder_facts, autoencoder_lines, is_autoencoder
from vqtok.errors import UsageError

if TYPE_CHECKING:
    from vqtok.tokenizer import Tokenizer
    from vqtok.tokens import TokenReader
    from vqtok.tokens.statistics import Statistics

HELP = "show what a token dataset, a tokenizer or an autoencoder is"
EXAMPLES = """\
examples:
  vqtok inspect tokens/
  vqtok inspect photo
  vqtok inspect runs/mine --json
  vqtok inspect runs/shapes --data shapes.npz --page shapes.html
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options of ``vqtok inspect``."""
    parser.add_argument(
        "path",
        metavar="PATH",
        help="a token dataset, one of its shards, a tokenizer (folder or bundled name), or an "
        "autoencoder",
    )
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")
    group = parser.add_argument_group("autoencoders")
    group.add_argument(
        "--data", help="score and reconstruct these: .csv, .npy, .npz, images or a text"
    )
    add_data_options(group)
    group.add_argument(
        "--page",
        type=Path,
        metavar="FILE",
        help="write reconstructions, samples, traversals and interpolations to a .html or .png",
    )


def run(args: argparse.Namespace) -> int:
    """Inspect; prints the facts."""
    path = Path(args.path)
    if not path.exists():
        _known_by_name(args.path)
    if path.is_dir() and not is_dataset(path) and not (path / "config.json").exists():
        raise UsageError(
            f"{path}: neither a token dataset (no manifest.json) nor a tokenizer (no config.json)"
        )
    if is_autoencoder(path):
        facts = autoencoder_facts(path, args.data, args.page, key=args.key, size=args.size)
        damaged: list[str] = []
        lines = autoencoder_lines(facts)
    elif any(each is not None for each in (args.data, args.page, args.key, args.size)):
        raise UsageError(
            f"--data, --key, --size and --page are for autoencoders, and {path} is none"
        )
    elif path.is_file() or is_dataset(path):
        from vqtok.tokens import TokenReader

        reader = TokenReader(path)
        facts, damaged = dataset_facts(reader)
        lines = _dataset_lines(facts)
    else:
        facts, damaged = tokenizer_facts(args.path), []
        lines = _tokenizer_lines(facts)
    say_each("damaged", damaged)
    if args.json:
        print(json.dumps(facts))
    else:
        show(*lines)
    return 1 if damaged else 0


def _known_by_name(name: str) -> None:
    """UsageError unless a tokenizer of this name is bundled."""
    from vqtok.tokenizer import bundled_names, is_bundled_name

    if not is_bundled_name(name):
        raise UsageError(
            f"{name}: no such file or folder, nor one of the bundled tokenizers "
            f"({', '.join(bundled_names())})"
        )


def dataset_facts(reader: TokenReader) -> tuple[dict[str, Any], list[str]]:
    """What a dataset holds and costs, and one message per damaged sample."""
    from vqtok.tokens.statistics import collect_statistics, entropy, perplexity, usage

    header, manifest = reader.header, reader.manifest
    with progress_bar(len(reader), "inspect") as progress:
        statistics = collect_statistics(reader, progress)
    files = list(reader.path.iterdir()) if manifest else [reader.path]
    size = sum(path.stat().st_size for path in files if path.is_file())
    code_bits = statistics.codes * sum(header.bits_per_code)
    if header.packing == "entropy":
        code_bits = reader.token_bytes * 8
    codebooks = [
        {
            "codebook_size": header.codebook_sizes[q],
            "bits_per_code": header.bits_per_code[q],
            "usage": None if counts is None else usage(counts),
            "entropy": None if counts is None else entropy(counts),
            "perplexity": None if counts is None else perplexity(counts),
        }
        for q, counts in enumerate(statistics.counts)
    ]
    facts = {
        "kind": "tokens",
        "path": str(reader.path),
        **header.to_json(),
        "samples": len(reader),
        "damaged": len(statistics.damaged),
        "errors": manifest.errors if manifest else 0,
        "notes": statistics.notes.to_json(),
        "shards": len(manifest.shards) if manifest else 1,
        "bytes": size,
        "codes": statistics.codes,
        **_rates(header.modality, statistics, size * 8, code_bits),
        "codebooks": codebooks,
    }
    return facts, statistics.damaged


def _rates(modality: str, statistics: Statistics, bits: int, code_bits: int) -> dict[str, Any]:
    """Bits of all files, and of the codes alone, by what the samples measure; None if unknown."""
    if modality == "audio":
        seconds = statistics.seconds or None
        return {
            "seconds": seconds,
            "kbps": bits / seconds / 1000 if seconds else None,
            "kbps_of_codes": code_bits / seconds / 1000 if seconds else None,
        }
    pixels = statistics.pixels or None
    return {
        "pixels": pixels,
        "bpp": bits / pixels if pixels else None,
        "bpp_of_codes": code_bits / pixels if pixels else None,
    }


def tokenizer_facts(name: str) -> dict[str, Any]:
    """What a tokenizer is: sizes, rates, configuration."""
    from vqtok.tokenizer import Tokenizer, find_pretrained
    from vqtok.tokens import Header

    tokenizer = Tokenizer.from_pretrained(name)
    sizes = tokenizer.codebook_sizes
    header = Header(tokenizer="", tokenizer_name="", codebook_sizes=sizes)
    folder = find_pretrained(name)
    return {
        "kind": "tokenizer",
        "path": str(folder),
        "name": tokenizer.name,
        "fingerprint": tokenizer.fingerprint,
        "modality": tokenizer.modality,
        "codebook_sizes": list(sizes),
        **_resolution(tokenizer, list(accumulate(header.bits_per_code))),
        "parameters": sum(value.numel() for value in tokenizer.autoencoder.parameters()),
        "bytes": sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
        "config": tokenizer.autoencoder.config,
        "prior": None if tokenizer.prior is None else tokenizer.prior.digest,
        "training": tokenizer.training,
    }


def _resolution(tokenizer: Tokenizer, bits: list[int]) -> dict[str, Any]:
    """What a code stands for, and the rate by number of codebooks; ``bits`` are their sums."""
    from vqtok.tokenizer import AudioTokenizer, ImageTokenizer

    if isinstance(tokenizer, AudioTokenizer):
        stream = tokenizer.stream()
        return {
            "sample_rate": tokenizer.sample_rate,
            "hop": tokenizer.hop,
            "frame_rate": tokenizer.frame_rate,
            "channels_together": tokenizer.together,
            "kbps": [each * tokenizer.frame_rate / 1000 for each in bits],
            "latency": {"encode": stream.encoder.latency, "decode": stream.decoder.latency},
        }
    assert isinstance(tokenizer, ImageTokenizer)
    pixels = tokenizer.downsample**2
    return {"downsample": tokenizer.downsample, "bpp": [each / pixels for each in bits]}


def _model(facts: dict[str, Any]) -> str:
    """What an entropy-coded dataset was coded with."""
    if facts["packing"] != "entropy":
        return ""
    return f", prior {facts['prior'][:12]}" if facts["prior"] else ", adaptive model"


def _dataset_lines(facts: dict[str, Any]) -> list[str]:
    failed = f", {plural(facts['errors'], 'input')} failed" if facts["errors"] else ""
    damaged = f", {facts['damaged']:,} damaged" if facts["damaged"] else ""
    rate = codes = ""
    if facts.get("bpp") is not None:
        rate = f", {facts['bpp']:.4f} bits per pixel on disk"
        codes = f", {facts['bpp_of_codes']:.4f} bits per pixel"
    if facts.get("kbps") is not None:
        rate = f", {facts['kbps']:.3f} kbps on disk; {facts['seconds']:,.1f} s of sound"
        codes = f", {facts['kbps_of_codes']:.3f} kbps"
    shards = plural(facts["shards"], "shard")
    lines = [
        f"{facts['path']}: token dataset, format version {facts['format_version']}",
        f"  tokenizer   {facts['tokenizer_name']} ({facts['tokenizer'][:12]})",
        f"  samples     {facts['samples']:,} ({facts['modality']}) in {shards}{failed}{damaged}",
        f"  size        {facts['bytes']:,} bytes{rate}",
        f"  codes       {facts['codes']:,} x {plural(len(facts['codebooks']), 'codebook')}{codes}",
        f"  packing     {facts['packing']}{_model(facts)}",
        "  codebook      size  bits  entropy   usage  perplexity",
    ]
    for q, book in enumerate(facts["codebooks"]):
        line = f"  {q:8d}  {book['codebook_size']:8d}  {book['bits_per_code']:4d}"
        if book["usage"] is not None:
            line += f"  {book['entropy']:7.3f}  {book['usage']:6.1%}  {book['perplexity']:10.1f}"
        lines.append(line)
    notes = facts["notes"]
    for each in notes[:SHOWN_ERRORS]:
        lines.append(f"  note on {plural(each['samples'], 'sample')}: {each['note']}")
        lines[-1] += f" ({'first ' if each['samples'] > 1 else ''}{each['first']})"
    if len(notes) > SHOWN_ERRORS:
        lines.append(f"  {plural(len(notes) - SHOWN_ERRORS, 'more note')}, see --json")
    return lines


def _tokenizer_lines(facts: dict[str, Any]) -> list[str]:
    if facts["modality"] == "audio":
        rates = ", ".join(f"{q}: {kbps:.2f}" for q, kbps in enumerate(facts["kbps"], 1))
        encode, decode = facts["latency"].values()
        what = "for all channels" if facts["channels_together"] else "and channel"
        of = "mono or stereo" if facts["channels_together"] else "a channel"
        own = [
            f"  input           audio of any length and rate; {facts['sample_rate']:,} Hz inside",
            f"  codes           {facts['frame_rate']:g} of each codebook a second {what}",
            f"  latency         {encode:.2f} s to encode, {decode:.2f} s to decode a stream",
            f"  kbps            {rates} (by number of codebooks, {of})",
        ]
    else:
        rates = ", ".join(f"{q}: {bpp:.4f}" for q, bpp in enumerate(facts["bpp"], 1))
        own = [
            f"  input           {facts['modality']}, any size",
            "  codes           one per codebook and {0} x {0} pixels".format(facts["downsample"]),
            f"  bits per pixel  {rates} (by number of codebooks)",
        ]
    return [
        f"{facts['path']}: tokenizer {facts['name']!r}",
        f"  fingerprint     {facts['fingerprint']}",
        *own,
        f"  codebook sizes  {', '.join(map(str, facts['codebook_sizes']))}",
        f"  parameters      {facts['parameters']:,}",
        f"  size            {facts['bytes']:,} bytes",
        f"  prior           {(facts['prior'] or 'none')[:12]}",
        f"  config          {json.dumps(facts['config'])}",
        f"  training        {json.dumps(_without(facts['training'], facts['config']))}",
    ]


def _without(facts: dict[str, Any], shown: Any) -> dict[str, Any]:
    """``facts`` less those that are what was ``shown`` already."""
    return {key: value for key, value in facts.items() if value != shown}
