"""``vqtok train-prior``: what makes ``--pack entropy`` small, for any tokenizer."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqtok.cli.common import (
    NOUNS,
    add_job_arguments,
    is_dataset,
    load_tokenizer,
    plural,
    positive,
    progress_bar,
    say,
    say_each,
    show,
)
from vqtok.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from vqtok.tokenizer import Tokenizer

HELP = "teach a tokenizer to store its codes in fewer bytes"
EXAMPLES = """\
examples:
  vqtok train-prior runs/mine --data photos/
  vqtok train-prior runs/mine --data tokens/             codes that are there already
  vqtok train-prior photo --data drawings/ --out runs/photo-drawings --from-prior
  vqtok encode photos/ tokens/ --tokenizer runs/mine --pack entropy

The prior is a small network that predicts each code from those around it; --pack entropy stores a
code in as many bits as it was surprised by it. prior.safetensors goes beside the weights, where
encode and decode find it; keep it with the tokens, which need the same one to be decoded. The
tokenizer and its fingerprint stay as they are.

Bits per code are those of samples that it was not trained on.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options of ``vqtok train-prior``."""
    parser.add_argument("tokenizer", metavar="TOKENIZER", help="name or folder")
    parser.add_argument(
        "--data",
        required=True,
        nargs="+",
        help="images or sounds (a folder, a glob, a text list of paths, or a .tar), or token "
        "datasets of this tokenizer with all its codebooks",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of a copy of the tokenizer with this prior (default: TOKENIZER itself)",
    )
    parser.add_argument("--steps", type=positive, default=6000, help="(default: %(default)s)")
    parser.add_argument(
        "--batch-size",
        type=positive,
        default=2048,
        help="positions in a step (default: %(default)s)",
    )
    parser.add_argument(
        "--learning-rate",
        type=float,
        help="(default: 0.003, or 0.001 with --from-prior)",
    )
    parser.add_argument(
        "--max-bytes",
        type=positive,
        default=1_000_000,
        metavar="N",
        help="of the prior: more bytes, fewer bits per code (default: %(default)s)",
    )
    parser.add_argument(
        "--from-prior",
        action="store_true",
        help="go on from the prior that TOKENIZER has, whose size stays",
    )
    parser.add_argument(
        "--validation",
        nargs="+",
        metavar="DATA",
        help="data to judge by, never trained on (default: a twentieth of the samples)",
    )
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--no-autocast", action="store_true", help="train in float32, not bfloat16")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: all cores)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the prior that is there already"
    )
    add_job_arguments(parser, "read files")


def run(args: argparse.Namespace) -> int:
    """Train; prints what came of it."""
    import torch

    from vqtok.tokenizer import find_pretrained
    from vqtok.tokens.prior import PRIOR
    from vqtok.training.config import check_seed
    from vqtok.training.prior import PriorConfig, train_prior

    check_seed(args.seed)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    rate = args.learning_rate
    if rate is None:
        rate = 1e-3 if args.from_prior else 3e-3
    config = PriorConfig(
        steps=args.steps,
        batch_size=args.batch_size,
        learning_rate=rate,
        seed=args.seed,
        max_bytes=args.max_bytes,
        autocast=not args.no_autocast,
    )
    tokenizer = load_tokenizer(args.tokenizer, args.device, args.precision)
    out = _target(args, tokenizer)
    if (out / PRIOR).exists() and not args.overwrite:
        raise UsageError(f"{out / PRIOR} exists; --overwrite replaces it")
    start = tokenizer.prior if args.from_prior else None
    if args.from_prior and start is None:
        raise UsageError(f"tokenizer {tokenizer.name!r} has no prior to go on from")
    validation, failed = None, 0  # read first, since a mistake in its name is found so
    if args.validation is not None:
        validation, failed = read_codes(args.validation, tokenizer, args.workers)
    samples, bad = read_codes(args.data, tokenizer, args.workers)
    failed += bad
    with _training_bar(config.steps) as advance:
        prior = train_prior(tokenizer.to("cpu"), samples, config, validation, advance, start=start)
    tokenizer.prior = prior  # whatever was there, be it of another tokenizer or malformed
    if out.resolve() != find_pretrained(args.tokenizer).resolve():
        tokenizer.save_pretrained(out)
    prior.save(out / PRIOR)
    facts = prior.training
    if args.json:
        result = {"prior": str(out / PRIOR), "digest": prior.digest, **facts}
        print(json.dumps({**result, "bytes": (out / PRIOR).stat().st_size}))
    else:
        show(*_lines(out / PRIOR, facts, NOUNS[tokenizer.modality]))
    return 1 if failed else 0


def read_codes(
    data: list[str], tokenizer: Tokenizer, workers: int
) -> tuple[list[NDArray[np.int64]], int]:
    """The codes of all inputs, integer [A, B, Q] each, and how many could not be read."""
    samples: list[NDArray[np.int64]] = []
    errors: list[str] = []
    for spec in data:
        if is_dataset(Path(spec)) or Path(spec).suffix == ".safetensors":
            _from_tokens(Path(spec), tokenizer, samples, errors)
        else:
            _from_files(spec, tokenizer, workers, samples, errors)
    say_each("not used", errors)
    return samples, len(errors)


def _from_tokens(path: Path, tokenizer: Tokenizer, samples: list[Any], errors: list[str]) -> None:
    from vqtok.pipeline.samples import readable
    from vqtok.tokens import TokenReader

    tokens = TokenReader(path)
    if tokens.header.tokenizer != tokenizer.fingerprint:
        raise UsageError(
            f"{path} was made by tokenizer {tokens.header.tokenizer_name!r} "
            f"({tokens.header.tokenizer[:12]}), not {tokenizer.name!r} "
            f"({tokenizer.fingerprint[:12]})"
        )
    if tokens.header.num_codebooks != tokenizer.num_codebooks:
        raise UsageError(
            f"{path} holds {tokens.header.num_codebooks} of {tokenizer.num_codebooks} codebooks; "
            "a prior is trained on all of them (a prior for all serves fewer too)"
        )
    for _, sample in readable(tokens, None):
        if isinstance(sample, str):
            errors.append(sample)
        else:
            samples.append(sample.codes)


def _from_files(
    spec: str, tokenizer: Tokenizer, workers: int, samples: list[Any], errors: list[str]
) -> None:
    from vqtok.errors import DataError
    from vqtok.media.listing import list_sources
    from vqtok.pipeline.task import ENCODERS

    sources = list_sources(spec, tokenizer.modality)
    encode = ENCODERS[tokenizer.modality]
    with progress_bar(len(sources), "encode") as progress:
        for result in encode(sources, tokenizer, tokenizer.num_codebooks, workers):
            if isinstance(result, DataError):
                errors.append(str(result))
            else:
                parts = result if isinstance(result, list) else [result]
                samples.extend(part.codes for part in parts)
            progress(1)


def _target(args: argparse.Namespace, tokenizer: Tokenizer) -> Path:
    from vqtok.autoencoders.storage import CONFIG_NAME, read_config
    from vqtok.tokenizer import is_bundled_name

    out: Path | None = args.out
    if out is not None:
        if out.exists() and not out.is_dir():
            raise UsageError(f"--out {out} is a file, not a folder")
        other = (out / CONFIG_NAME).exists()
        if other and read_config(out, {"fingerprint": str})["fingerprint"] != tokenizer.fingerprint:
            raise UsageError(f"--out {out} holds another tokenizer; choose another folder")
        return out
    if is_bundled_name(args.tokenizer):
        raise UsageError(
            f"{tokenizer.name!r} comes with vqtok: say with --out where a copy of it with the "
            "prior should go"
        )
    return Path(args.tokenizer)


class _training_bar:  # noqa: N801
    """A bar on standard error, if that is a terminal, that shows bits per code as they fall."""

    def __init__(self, steps: int) -> None:
        from tqdm import tqdm

        self._mean = 0.0
        self._bar = tqdm(total=steps, desc="train", unit="step", disable=not sys.stderr.isatty())

    def __enter__(self) -> Callable[[int, float], None]:
        return self._advance

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def _advance(self, step: int, bits: float) -> None:
        share = max(0.01, 1 / step)
        self._mean += share * (bits - self._mean)
        self._bar.update(step - self._bar.n)
        self._bar.set_postfix_str(f"{self._mean:.3f} bits per code", refresh=False)


def _lines(path: Path, facts: dict[str, Any], noun: str) -> list[str]:
    bits = facts["bits_per_code"]
    learned = f"{facts['positions']:,} positions of {plural(facts['samples'], noun)}"
    lines = [
        f"{path}: {path.stat().st_size:,} bytes, learned from {learned}",
        f"bits per code of {plural(facts['validation_samples'], noun)} it did not learn from:",
        "  codebook   fixed width   order-0   prior",
    ]
    rows = zip(bits["fixed"], bits["order0"], bits["integer"], strict=True)
    for q, (fixed, order0, integer) in enumerate(rows):
        lines.append(f"  {q:8}   {fixed:11}   {order0:7.2f}   {integer:5.2f}")
    total = sum(bits["integer"]) / sum(bits["fixed"])
    lines.append(f"--pack entropy will take about {total:.0%} of the bits of --pack bits")
    if sum(bits["integer"]) > sum(bits["order0"]):
        say("the prior is worse than plain statistics on new samples: it needs more data")
    return lines
