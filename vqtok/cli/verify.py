"""``vqtok verify``: is every byte of a token dataset still right?"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from vqtok.cli.common import existing_tokens, plural, progress_bar, show

HELP = "check a token dataset completely"
EXAMPLES = """\
examples:
  vqtok verify tokens/
  vqtok verify tokens/shard-00003.safetensors --json

Checks the structure, every checksum, every code and every count, and prints one line per problem
with the shard and the sample it is in. The exit code is 1 if there are any.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options of ``vqtok verify``."""
    parser.add_argument(
        "tokens", metavar="TOKENS", type=Path, help="a token dataset, or one of its shards"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Verify; prints the problems, or that there are none."""
    from vqtok.errors import DataError
    from vqtok.tokens import TokenReader, verify

    tokens = existing_tokens(args.tokens)
    try:
        total = len(TokenReader(tokens))
    except DataError:
        total = 0  # verify says why
    with progress_bar(total, "verify") as progress:
        problems = verify(args.tokens, progress)
    if args.json:
        found = [asdict(problem) for problem in problems]
        print(json.dumps({"tokens": str(args.tokens), "samples": total, "problems": found}))
    elif problems:
        for problem in problems:
            show(str(problem))
    else:
        show(f"{args.tokens}: {plural(total, 'sample')}, no problems")
    return 1 if problems else 0
