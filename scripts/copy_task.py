"""Random symbols through a few latents and back: which share comes back exactly, by length.

Each sequence is of a random length up to --length and of random symbols, so there is nothing to
learn but to copy: what comes back is what the latents hold. Decoding starts from the latents
alone and ends where the decoder says so; one wrong or missing symbol is a failure. The last column
is of lengths that were never trained.

    nice -n 15 python scripts/copy_task.py --threads 1 --json copy.json

Measured on an Intel Xeon with 2 cores, 1 thread, torch 2.13.0, one seed: 8 latents of 16
dimensions, 16 symbols, 2,000 steps of 64 sequences.

    | model                      | parameters | CPU s |    1-4 |    5-8 |   9-12 | 13-16 | 17-20 |
    |----------------------------|-----------:|------:|-------:|-------:|-------:|------:|------:|
    | rnn -> rnn                 |    128,609 |    71 | 100.0% | 100.0% | 100.0% | 97.2% | 12.8% |
    | rnn -> parallel            |    277,217 |   111 | 100.0% | 100.0% | 100.0% | 78.6% |  0.0% |
    | transformer -> transformer |    239,329 |   114 | 100.0% | 100.0% | 100.0% | 99.6% |  0.0% |
    | transformer -> parallel    |    308,769 |   117 | 100.0% | 100.0% |  99.6% | 45.4% |  0.0% |
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from vqtok.autoencoders import Autoencoder
from vqtok.autoencoders.bottlenecks import IdentityBottleneck
from vqtok.cli import exit_code
from vqtok.nn import build_decoder, build_encoder
from vqtok.training import TrainConfig, Trainer
from vqtok.training.by_length import by_length
from vqtok.training.fit_sequences import SequenceTask
from vqtok.training.sequences import padded
from vqtok.training.task import Inputs

SYMBOLS = 17  # the last ends a sequence
PAIRS = [
    ("rnn", "rnn"),
    ("rnn", "parallel"),
    ("transformer", "transformer"),
    ("transformer", "parallel"),
]


class Random:
    """Batches of random symbols, of lengths shortest..longest."""

    def __init__(self, shortest: int, longest: int, *, batch_size: int, seed: int) -> None:
        self.shortest, self.longest = shortest, longest
        self.batch_size, self.seed = batch_size, seed
        self.skipped: list[str] = []

    def __len__(self) -> int:
        return 1

    @property
    def digest(self) -> str:
        """SHA-256 of the settings."""
        return hashlib.sha256(json.dumps(vars(self)).encode()).hexdigest()

    def batch(self, index: int) -> Inputs:
        """Batch ``index``."""
        generator = np.random.default_rng([self.seed, index])
        lengths = generator.integers(self.shortest, self.longest + 1, self.batch_size)
        return padded(
            [np.append(generator.integers(0, SYMBOLS - 1, n), SYMBOLS - 1) for n in lengths]
        )

    def batches(self, start: int, stop: int, stride: int = 1) -> Iterator[Inputs]:
        """The batches of range(start, stop, stride)."""
        return map(self.batch, range(start, stop, stride))


def build(pair: tuple[str, str], options: argparse.Namespace) -> Autoencoder:
    """An autoencoder of a kind of encoder and of decoder."""
    sizes = {"dim": options.dim, "num_latents": options.latents, "symbols": SYMBOLS, "width": 64}
    limits = [
        {"max_length": most, **({} if kind == "rnn" else {"longest_period": most})}
        for kind, most in zip(pair, (options.length + 1, 2 * options.length), strict=True)
    ]
    encoder_limit = {} if pair[0] == "rnn" else limits[0]
    depth = {"rnn": 1, "transformer": 2, "parallel": 4}
    return Autoencoder(
        build_encoder({"type": pair[0], "depth": depth[pair[0]], **sizes, **encoder_limit}),
        IdentityBottleneck(options.dim),
        build_decoder({"type": pair[1], "depth": depth[pair[1]], **sizes, **limits[1]}),
        likelihood="categorical",
    )


def measure(pair: tuple[str, str], options: argparse.Namespace) -> dict[str, object]:
    """Train one and score it on other sequences."""
    started = time.process_time()
    config = TrainConfig(
        steps=options.steps,
        batch_size=64,
        learning_rate=options.learning_rate,
        warmup=100,
        weight_decay=0.0,
        average_decay=0.99,
        autocast=False,
        seed=options.seed,
        save_every=options.steps,
    )
    data = Random(1, options.length, batch_size=64, seed=options.seed)
    model = build(pair, options)
    sample = SequenceTask(data.batch(0))
    fitted = Trainer(model.config, data, None, config, name="-".join(pair), task=sample).fit()
    assert isinstance(fitted, Autoencoder)
    quarter = options.length // 4
    spans = [(start + 1, start + quarter) for start in range(0, 5 * quarter, quarter)]
    exact = {}
    for low, high in spans:
        unseen = Random(low, high, batch_size=500, seed=options.seed + 1000)
        (score,) = by_length(fitted, unseen.batch(0), ranges=1)
        exact[f"{low}-{high}"] = score.exact
    return {
        "model": f"{pair[0]} -> {pair[1]}",
        "parameters": sum(parameter.numel() for parameter in fitted.parameters()),
        "seconds": round(time.process_time() - started),
        "exact": exact,
    }


def main() -> None:
    """Print the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", nargs=2, metavar=("ENCODER", "DECODER"), help="one pair (default: all four)"
    )
    parser.add_argument("--length", type=int, default=16, help="longest sequence in training")
    parser.add_argument("--latents", type=int, default=8)
    parser.add_argument("--dim", type=int, default=16, help="dimensions of a latent")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="write the results here as well")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {options.threads} threads, torch "
        f"{torch.__version__}; {options.latents} latents of {options.dim}, {options.steps} steps"
    )
    results = []
    for pair in [tuple(options.only)] if options.only else PAIRS:
        results.append(measure(pair, options))
        exact = results[-1]["exact"]
        assert isinstance(exact, dict)
        if len(results) == 1:
            print("| model | parameters | CPU seconds | " + " | ".join(exact) + " |")
            print("|---|---:|---:|" + "---:|" * len(exact))
        shares = " | ".join(f"{share:.1%}" for share in exact.values())
        row = results[-1]
        print(
            f"| {row['model']} | {row['parameters']:,} | {row['seconds']} | {shares} |", flush=True
        )
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(exit_code(main))
