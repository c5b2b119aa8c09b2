"""Anomalies in series: sequence autoencoders beside PCA and the distance to the mean.

Each method scores all windows of a series step by step (``step_scores``); a step counts as
anomalous as the mean over its windows says. NAB labels stretches of time, not steps: there each
step of a window has the window's mean score. AUROC and average precision (AP) compare the steps
with the truth: 50% and the share of anomalous steps are chance. PCA has as many components as the
models have numbers in their code. Windows of 128 steps are longer than a drawn heartbeat. Needs
scikit-learn (``pip install vqtok[bench]``).

    nice -n 15 python scripts/anomaly_series.py                                    # heartbeats
    nice -n 15 python scripts/anomaly_series.py --nab NAB --length 64 --steps 200  # NAB's
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from series_data import Labelled, heartbeats, nab
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from vqtok.autoencoders import Autoencoder
from vqtok.autoencoders.options import Options
from vqtok.autoencoders.seq2seq import seq2seq_rnn, seq2seq_transformer
from vqtok.cli import exit_code
from vqtok.training.baselines import PCA
from vqtok.training.fit import default_config
from vqtok.training.fit_sequences import fit_sequences
from vqtok.training.step_scores import step_scores

Score = Callable[[Tensor], Tensor]

# Half of the models say one value after the other, knowing those before, half all at once.
MODELS = {
    "seq2seq-rnn": (seq2seq_rnn, {}),
    "seq2seq-rnn, parallel": (seq2seq_rnn, {"decoder": "parallel"}),
    "seq2seq-transformer": (seq2seq_transformer, {}),
    "seq2seq-transformer, parallel": (seq2seq_transformer, {"decoder": "parallel"}),
}


def train(name: str, series: np.ndarray, options: argparse.Namespace) -> Autoencoder:
    """A model fitted to a series."""
    make, settings = MODELS[name]
    shape = (options.length, series.shape[1])
    chosen = Options(code_size=options.dim, hidden=(64,))
    model = make(shape, chosen, latents=options.latents, **settings)
    config = default_config(
        steps=options.steps, batch_size=32, clip=1.0, seed=options.seed, learning_rate=3e-3
    )
    return fit_sequences(
        model, [series], config, length=options.length, held_out=0.0, name=name
    ).model


def simple(series: np.ndarray, options: argparse.Namespace) -> dict[str, Score]:
    """PCA and the distance to the mean."""
    windows = torch.from_numpy(series).unfold(0, options.length, 1).transpose(1, 2)
    found: dict[str, Score] = {}
    size = options.latents * options.dim
    for name, components in ((f"PCA {size}", size), ("distance to mean", 0)):
        pca = PCA.fit(windows, components)
        found[name] = lambda part, pca=pca: -(pca.reconstruct(part) - part).square()
    return found


def judge(score: Score, case: Labelled, options: argparse.Namespace) -> tuple[float, float]:
    """AUROC and average precision in percent."""
    series = torch.from_numpy(case.test)
    if case.stretches:
        by_step = score

        def score(windows: Tensor) -> Tensor:
            return by_step(windows).mean(1, keepdim=True).expand(windows.shape)

    steps = step_scores(score, series, options.length, stride=options.stride).numpy()
    auroc = roc_auc_score(case.anomalous, -steps)
    return 100 * auroc, 100 * average_precision_score(case.anomalous, -steps)


def table(cases: list[Labelled], options: argparse.Namespace) -> list[dict[str, object]]:
    """Score all methods on all series, printing a line for each series."""
    trained: dict[int, dict[str, Score]] = {}
    rows: list[dict[str, object]] = []
    for case in cases:
        methods = trained.get(id(case.train))
        if methods is None:
            methods = simple(case.train, options)
            for name in options.models:
                model = train(name, case.train, options)
                methods[name] = lambda part, model=model: model.score_samples(
                    part, per_feature=True
                )
            trained[id(case.train)] = methods
        if not rows:
            print("| series | anomalous | " + " | ".join(methods) + " |")
            print("|---|---:|" + "---:|" * len(methods))
        share = 100 * float(case.anomalous.mean())
        scores = {name: judge(score, case, options) for name, score in methods.items()}
        rows.append({"series": case.name, "anomalous": share, "scores": scores})
        cells = " | ".join(f"{auroc:.1f} / {ap:.1f}" for auroc, ap in scores.values())
        print(f"| {case.name} | {share:.1f} | {cells} |", flush=True)
    means = {
        name: np.mean([row["scores"][name] for row in rows], axis=0) for name in rows[0]["scores"]
    }
    cells = " | ".join(f"{auroc:.1f} / {ap:.1f}" for auroc, ap in means.values())
    print(f"| **mean** | | {cells} |", flush=True)
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--nab", type=Path, help="folder with NAB's data/ and labels/ (default: heartbeats)"
    )
    parser.add_argument("--length", type=int, default=128, help="steps of a window")
    parser.add_argument("--stride", type=int, default=8, help="steps between scored windows")
    parser.add_argument("--latents", type=int, default=2)
    parser.add_argument("--dim", type=int, default=4, help="dimensions of a latent")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="write the results here as well")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {options.threads} threads, torch "
        f"{torch.__version__}; windows of {options.length}, code of "
        f"{options.latents * options.dim} numbers, {options.steps} steps; AUROC / AP in %"
    )
    started = time.process_time()
    cases = heartbeats(options.seed) if options.nab is None else nab(options.nab)
    results = table(cases, options)
    print(f"{time.process_time() - started:.0f} CPU seconds")
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(exit_code(main))
