"""What the verbs that make token datasets share: who does the work, and what is said at the end."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqtok.cli.common import SHOWN_ERRORS, plural, positive, say, show
from vqtok.errors import UsageError

if TYPE_CHECKING:
    from vqtok.pipeline import EncodeReport, Engine, Plan, Share


def add_scale_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say which processes do the work."""
    parser.add_argument(
        "--processes",
        type=positive,
        metavar="N",
        help="processes that encode, each with the model in memory; a share of the cores each "
        "(default: 1; with ray as many as the cluster holds)",
    )
    parser.add_argument(
        "--engine",
        choices=["local", "ray"],
        default="local",
        help="local: this machine; ray: actors on a Ray cluster, that of RAY_ADDRESS or one of its "
        "own (default: %(default)s)",
    )
    parser.add_argument(
        "--share",
        metavar="I/N",
        help="encode the share of process I of N only, counted from 0; all: everything (default: "
        "what torchrun or SLURM array say)",
    )


def local_device(device: str) -> str:
    """``device``, and for "cuda" under torchrun the GPU of this process."""
    rank = os.environ.get("LOCAL_RANK", "")
    return f"cuda:{rank}" if device == "cuda" and rank.isdecimal() else device


def everywhere(tokenizer: str) -> str:
    """The name of a tokenizer for processes with another working directory."""
    from vqtok.tokenizer import is_bundled_name

    return tokenizer if is_bundled_name(tokenizer) else os.path.abspath(tokenizer)


def make_engine(args: argparse.Namespace, load: Callable[[], Any], device: str) -> Engine | None:
    """What ``--engine`` and ``--processes`` ask for; None for this process itself.

    ``load`` makes the tokenizer in another process, on ``device``.
    """
    cores = len(os.sched_getaffinity(0))
    if args.engine == "ray":
        from vqtok.pipeline.on_ray import OnRay

        return OnRay(load, args.processes, gpu=device.startswith("cuda"))
    if args.processes is None or args.processes == 1:
        return None
    if device.startswith("cuda"):
        raise UsageError(
            "--processes share no GPU; for several GPUs: torchrun --nproc-per-node N --no-python "
            "vqtok encode ... --device cuda"
        )
    from vqtok.pipeline import Processes

    each = max(1, cores // args.processes)
    return Processes(load, args.processes, workers=min(each, args.workers), threads=each)


def note_few_shards(plan: Plan, args: argparse.Namespace, share: Share) -> None:
    """Say so when there are fewer shards than processes to make them."""
    processes = share.size * (args.processes or 1)
    if processes > plan.num_tasks:
        say(
            f"{plural(plan.num_tasks, 'shard')} for {processes:,} processes, which make one at a "
            "time each: a smaller --shard-size gives all of them work"
        )


def report_dataset(report: EncodeReport, out: Path, share: Share, as_json: bool) -> int:
    """Print what came of a job; returns the exit code, 1 if inputs failed."""
    manifest = report.manifest
    if manifest is None:
        _show_share(out, share, as_json)
        return 0
    size = sum(path.stat().st_size for path in out.iterdir())
    if manifest.errors:
        _show_errors(out / "errors.jsonl", manifest.errors)
    if as_json:
        facts = {
            "out": str(out),
            "samples": manifest.samples,
            "errors": manifest.errors,
            "shards": len(manifest.shards),
            "bytes": size,
            "tokenizer": manifest.header.tokenizer,
            "already_done": report.already_done,
        }
        print(json.dumps(facts))
    elif not manifest.samples:
        show(f"{out} holds no samples: not one of {plural(manifest.errors, 'input')} could be read")
    else:
        state = "was complete already" if report.already_done else "is complete"
        shards = plural(len(manifest.shards), "shard")
        hint = " (vqtok verify reads them all)" if report.already_done else ""
        samples = plural(manifest.samples, "sample")
        show(f"{out} {state}: {samples} in {shards}, {size:,} bytes{hint}")
    return 1 if manifest.errors else 0


def _show_share(out: Path, share: Share, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"out": str(out), "share": [share.rank, share.size], "complete": False}))
    else:
        show(
            f"{out}: process {share.rank} of {share.size} (counted from 0) is done; the last one "
            "makes the dataset"
        )


def _show_errors(path: Path, count: int) -> None:
    with path.open(encoding="utf-8") as lines:
        for line, _ in zip(lines, range(SHOWN_ERRORS), strict=False):
            failure = json.loads(line)
            say(f"not encoded: {failure['source']}: {failure['error']}")
    more = f"{count - SHOWN_ERRORS:,} more; " if count > SHOWN_ERRORS else ""
    say(f"{more}{plural(count, 'input')} could not be encoded, see {path}")
