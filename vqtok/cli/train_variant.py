"""``vqtok train VARIANT``: a classic autoencoder on a table, numpy arrays or small images."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from vqtok.cli.common import say, show
from vqtok.cli.data_options import check_data_options
from vqtok.errors import DataError, UsageError


def run(args: argparse.Namespace) -> int:
    """Train; prints how it did beside PCA and the mean."""
    import warnings

    from vqtok.training.fit import MemorisingWarning
    from vqtok.training.ranks import joined, this_rank

    _check_options(args)
    prepared = _of_sequences(args) if args.preset.startswith("seq2seq") else _of_samples(args)
    with joined(args.device) as device, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MemorisingWarning)
        fitted = prepared(
            config=train_config(args),
            held_out=0.1 if args.held_out is None else args.held_out,
            contamination=args.contamination,
            out=args.out,
            name=args.name or args.preset,
            device=device,
        )
        if this_rank():
            return 0
    for warning in caught:
        say(f"warning: {warning.message}")
    if args.json:
        facts = {"out": str(args.out), "name": fitted.model.name, **fitted.facts()}
        print(json.dumps({**facts, "fingerprint": fitted.model.fingerprint}))
    else:
        show(*str(fitted).splitlines())
        if fitted.model.threshold is not None:
            show(f"anomalies score below {fitted.model.threshold:.6g}")
        show(f"{args.out} is trained; {fitted.model.fingerprint[:12]}")
    return 0


def _check_options(args: argparse.Namespace) -> None:
    """UsageError for an option that would do nothing."""
    for option in ("init", "validation", "crop", "adversary", "no_autocast"):
        if getattr(args, option):
            name = option.replace("_", "-")
            raise UsageError(f"--{name} belongs to tokenizers, not to {args.preset}")
    sequences = args.preset.startswith("seq2seq")
    check_data_options(args.data, key=args.key, size=args.size, sequences=sequences)


def _of_samples(args: argparse.Namespace) -> Callable[..., Any]:
    """The fit of a variant to samples of one shape, but for how to train."""
    from vqtok.autoencoders.variants import variant
    from vqtok.training.fit import fit
    from vqtok.training.loading import load_samples

    try:
        loaded = load_samples(args.data, key=args.key, size=args.size)
    except (UsageError, DataError) as error:
        if Path(args.data).suffix.lower() != ".txt":
            raise
        raise type(error)(
            f"{error} (a .txt is a list of images here; texts are for the seq2seq variants)"
        ) from error
    for skipped in loaded.skipped:
        say(f"left out {skipped}")
    try:
        model = variant(args.preset, loaded.samples.shape[1:], **settings_of(args.set))
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    return partial(fit, model, loaded.samples)


def _of_sequences(args: argparse.Namespace) -> Callable[..., Any]:
    """The fit of a variant to sequences, but for how to train."""
    from vqtok.training.fit_sequences import fit_sequences
    from vqtok.training.loading import load_sequences

    settings = settings_of(args.set)
    lines = bool(settings.pop("lines", False))
    sequences = load_sequences(args.data, key=args.key, lines=lines)

    def fit(config: Any, **options: Any) -> Any:
        # Steep places of recurrent networks must not throw training off.
        config = replace(config, clip=1.0)
        try:
            return fit_sequences(args.preset, sequences, config, **options, **settings)
        except (TypeError, ValueError) as error:
            raise UsageError(str(error)) from error

    return fit


def train_config(args: argparse.Namespace) -> Any:
    """How to train: what the options say, else the defaults for arrays."""
    from vqtok.training.fit import default_config

    chosen = {
        "steps": args.steps,
        "batch_size": args.batch_size,
        "learning_rate": args.learning_rate,
        "save_every": args.save_every,
        "seed": args.seed,
    }
    return default_config(**{key: value for key, value in chosen.items() if value is not None})


def settings_of(pairs: Sequence[str]) -> dict[str, Any]:
    """``["code_size=8", "stack=conv"]`` as a dictionary; values are JSON, else text."""
    settings = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {pair}: write NAME=VALUE")
        try:
            settings[key.replace("-", "_")] = json.loads(text)
        except ValueError:
            settings[key.replace("-", "_")] = text
    return settings
