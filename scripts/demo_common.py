"""What the parts of the demo share: running vqtok, counting bytes, drawing tables."""

from __future__ import annotations

import math
import shlex
import subprocess
import sys
import time
from pathlib import Path

from vqtok import TokenReader


def run(*arguments: str) -> tuple[str, float]:
    """One vqtok command in a process of its own: its standard output, and seconds."""
    command = [sys.executable, "-m", "vqtok", *arguments]
    print("$", shlex.join(["vqtok", *arguments]), flush=True)
    start = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout, time.perf_counter() - start


def round_trip(
    source: str, tokenizer: str, q: int, tokens: Path, decoded: Path
) -> dict[str, float]:
    """Encode, verify and decode with q codebooks: the seconds of each command."""
    choice = ["--tokenizer", tokenizer, "--num-codebooks", str(q), "--pack", "bits"]
    return {
        "encode": run("encode", source, str(tokens), *choice)[1],
        "verify": run("verify", str(tokens))[1],
        "decode": run("decode", str(tokens), str(decoded), "--tokenizer", tokenizer)[1],
    }


def file_bytes(tokens: Path) -> int:
    """Bytes of every file of a token dataset, headers and manifest included."""
    return sum(path.stat().st_size for path in tokens.rglob("*") if path.is_file())


def code_bytes(tokens: Path) -> dict[str, int]:
    """Bytes of each sample's codes: every codebook's plane packed, in whole bytes."""
    reader = TokenReader(tokens)
    sizes = {}
    for i in range(len(reader)):
        sample = reader[i]
        count = math.prod(sample.codes.shape[:-1])
        bits = [math.ceil(math.log2(size)) for size in reader.header.codebook_sizes]
        sizes[sample.meta["source"]] = sum(-(-count * b // 8) for b in bits)
    return sizes


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, padded: the first column to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: list[str]) -> str:
        padded = [cells[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(head), line(rule), *map(line, rows)])


def codebooks(count: int) -> str:
    """ "1 codebook", "4 codebooks"."""
    return f"{count} codebook{'s' if count > 1 else ''}"
