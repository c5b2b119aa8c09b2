"""What several verbs share."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from vqtok.errors import UsageError

if TYPE_CHECKING:
    from vqtok.tokenizer import Tokenizer


SHOWN_ERRORS = 10
"""Messages about inputs or samples that are shown before the rest is only counted."""


def positive(text: str) -> int:
    """An argument that counts something."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def add_job_arguments(parser: argparse.ArgumentParser, threads_do: str) -> None:
    """The options of verbs that run a model over many files."""
    parser.add_argument(
        "--device",
        default="cpu",
        help="where the model runs: cpu, cuda, cuda:N or mps (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=["float32", "bfloat16"],
        default="float32",
        help="of the network; of images bfloat16 is twice as fast where the processor has it, and "
        "a few percent of the codes are others (default: %(default)s)",
    )
    add_workers_argument(parser, f"{threads_do} while the model runs")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def load_tokenizer(name: str, device: str = "cpu", precision: str = "float32") -> Tokenizer:
    """The tokenizer ``name`` on ``device``; UsageError when there is no such device, or when the
    tokenizer does not run in this precision.
    """
    check_device(device)
    from vqtok.tokenizer import Tokenizer

    return Tokenizer.from_pretrained(name).to(device, precision=precision)


def check_device(device: str) -> None:
    """UsageError unless a model can run on ``device``."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?|mps", device):
        raise UsageError(f"--device {device}: choose cpu, cuda, cuda:N (the N-th, from 0) or mps")
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {device}: {reason}") from error


def add_workers_argument(parser: argparse.ArgumentParser, threads_do: str) -> None:
    """``--workers``: threads beside the one that runs the model."""
    cores = len(os.sched_getaffinity(0))
    parser.add_argument(
        "--workers",
        type=positive,
        default=min(cores, 8),
        metavar="N",
        help=f"threads that {threads_do}; the result does not depend on "
        "them (default: the number of cores, at most 8)",
    )


DEFAULT_TOKENIZERS = {"image": "photo", "audio": "audio"}
"""The bundled tokenizer of each modality."""


NOUNS = {"image": "image", "audio": "sound"}
"""What people call a sample of each modality."""


def existing(path: Path) -> Path:
    """``path``, or UsageError when nothing is there."""
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    return path


def existing_tokens(path: Path) -> Path:
    """``path``, or UsageError when it is a folder that holds no dataset, finished or not."""
    if existing(path).is_dir() and not is_dataset(path):
        raise UsageError(
            f"{path}: neither a token dataset (no manifest.json) nor one of its shards"
            + (": it is a tokenizer" if (path / "config.json").exists() else "")
        )
    return path


def is_dataset(folder: Path) -> bool:
    """Whether ``vqtok encode`` wrote this folder, or is not done with it."""
    return any((folder / name).exists() for name in ("manifest.json", ".vqtok"))


@contextmanager
def progress_bar(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, if that is a terminal; yields the function that advances it."""
    from tqdm import tqdm

    with tqdm(
        total=total, desc=what, unit=" samples", dynamic_ncols=True, disable=not sys.stderr.isatty()
    ) as bar:

        def advance(count: int) -> None:
            if bar.n == 0:  # what an earlier run did says nothing about the speed of this one
                bar.initial = count
            bar.update(count)

        yield advance


def say(message: str) -> None:
    """One line for people, on standard error."""
    print(f"vqtok: {printable(message)}", file=sys.stderr)


def say_each(what: str, messages: Sequence[str]) -> None:
    """The first messages about samples, those that are the same (of a lost shard) as one."""
    counts = Counter(messages)
    for message, count in islice(counts.items(), SHOWN_ERRORS):
        say(f"{what}: {message}" + (f" ({plural(count, 'sample')})" if count > 1 else ""))
    if len(counts) > SHOWN_ERRORS:
        say(f"{what}: {len(counts) - SHOWN_ERRORS:,} more")


def show(*lines: str) -> None:
    """A result for people, on standard output."""
    for line in lines:
        print(printable(line))


def printable(text: str) -> str:
    """``text`` on one line that cannot command a terminal: names may come from anywhere."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def plural(count: int, noun: str) -> str:
    """ "1 shard", "2,000 shards"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
