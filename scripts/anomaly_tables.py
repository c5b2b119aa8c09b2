"""Anomaly detection on tables: our autoencoders beside PCA, distance to the mean, and PyOD's.

    python scripts/anomaly_tables.py FOLDER [--seeds 5] [--tables 8] [--json FILE]

FOLDER holds the classical tables of ADBench (github.com/Minqi824/ADBench, adbench/datasets/
Classical): .npz files with X [N, F] and y [N], 1 for an anomaly. Semi-supervised, as in ADBench and
DTE: half of the normal rows are trained on; AUROC on everything else. Features are standardized by
the training rows. Every method has one setting for all tables. PyOD (extra ``bench``) runs its
AutoEncoder with its defaults; it is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from vqtok.cli import exit_code
from vqtok.training import default_config, fit
from vqtok.training.baselines import PCA

Scores = Callable[[Any, Any, int], Any]


def ours(name: str, **settings: Any) -> Scores:
    """Anomaly scores of a variant: minus its log-likelihood."""

    def scores(train: Any, test: Any, seed: int) -> Any:
        features = train.shape[1]
        wide = max(32, min(256, 8 * features))
        chosen = {"hidden": (wide, wide // 2), "code_size": max(2, features // 2)}
        chosen |= {"scaling": "none"} | settings
        config = default_config(
            steps=STEPS, batch_size=128, learning_rate=1e-3, weight_decay=1e-3, seed=seed
        )
        torch.manual_seed(seed)
        model = fit(name, train, config, held_out=0.0, **chosen).model
        return -model.score_samples(torch.from_numpy(test)).numpy()

    return scores


def principal(train: Any, test: Any, seed: int) -> Any:
    pca = PCA.fit(torch.from_numpy(train), max(1, train.shape[1] // 2))
    return -pca.score_samples(torch.from_numpy(test)).numpy()


def mean_distance(train: Any, test: Any, seed: int) -> Any:
    return np.square(test - train.mean(0)).sum(1)


def pyod(train: Any, test: Any, seed: int) -> Any:
    from pyod.models.auto_encoder import AutoEncoder

    detector = AutoEncoder(random_state=seed, verbose=0)
    detector.fit(train)
    return detector.decision_function(test)


STEPS = 1000
BASELINES: dict[str, Scores] = {"mean": mean_distance, "PCA d/2": principal, "PyOD AE": pyod}
OURS: dict[str, Scores] = {
    "vanilla": ours("vanilla"),
    "denoising": ours("denoising", corruption=0.3),
    "VAE": ours("vae", warmup=300),
    "contractive": ours("contractive"),
    "VQ": ours("vqvae", code_size=4, codebook_size=64, positions=8),
}


def load(path: Path, limit: int = 20_000) -> tuple[Any, Any]:
    with np.load(path) as file:
        X, y = file["X"].astype(np.float32), file["y"].astype(int).ravel()
    if len(X) > limit:
        chosen = np.random.default_rng(0).choice(len(X), limit, replace=False)
        X, y = X[chosen], y[chosen]
    return X, y


def split(X: Any, y: Any, seed: int) -> tuple[Any, Any, Any]:
    """Half of the normal rows to train on; the rest, and its labels; standardized."""
    normal = np.random.default_rng(seed).permutation(np.flatnonzero(y == 0))
    known = normal[: len(normal) // 2]
    rest = np.setdiff1d(np.arange(len(X)), known)
    mean, scale = X[known].mean(0), X[known].std(0)
    scaled = (X - mean) / np.where(scale > 1e-6, scale, 1.0)
    return scaled[known].astype(np.float32), scaled[rest].astype(np.float32), y[rest]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tables", type=int, help="only the first so many, smallest file first")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    methods = {**BASELINES, **OURS}
    try:
        import pyod.models.auto_encoder  # noqa: F401
    except ImportError:
        print("PyOD is not installed: left out")
        del methods["PyOD AE"]
    paths = sorted(args.folder.glob("*.npz"), key=lambda path: path.stat().st_size)
    print(f"{'AUROC, %':16}" + "".join(f"{name:>13}" for name in methods))
    table: dict[str, dict[str, list[float]]] = {}
    seconds = dict.fromkeys(methods, 0.0)
    for path in paths[: args.tables]:
        X, y = load(path)
        table[path.stem] = {}
        for name, method in methods.items():
            scores = []
            for seed in range(args.seeds):
                train, test, labels = split(X, y, seed)
                started = time.process_time()
                found = 100 * roc_auc_score(labels, method(train, test, seed))
                seconds[name] += time.process_time() - started
                scores.append(float(found))
            table[path.stem][name] = scores
        cells = (spread(scores) for scores in table[path.stem].values())
        print(f"{path.stem:16}" + "".join(f"{cell:>13}" for cell in cells), flush=True)
    summarize(table, seconds)
    if args.json:
        args.json.write_text(json.dumps({"auroc": table, "cpu_seconds": seconds}))


def spread(scores: list[float]) -> str:
    return f"{statistics.mean(scores):.1f}" + (
        f" +-{statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
    )


def summarize(table: dict[str, dict[str, list[float]]], seconds: dict[str, float]) -> None:
    names = list(next(iter(table.values())))
    means = {
        name: statistics.mean(statistics.mean(row[name]) for row in table.values())
        for name in names
    }
    print(f"{'mean':16}" + "".join(f"{means[name]:13.1f}" for name in names))
    print(f"{'CPU s per fit':16}" + "".join(f"{seconds[n] / count(table):13.1f}" for n in names))
    if "PyOD AE" not in names:
        return
    for name in OURS:
        better = sum(
            statistics.mean(row[name]) >= statistics.mean(row["PyOD AE"]) for row in table.values()
        )
        print(f"{name} is at least as good as PyOD's on {better} of {len(table)}")
    best = sum(
        max(statistics.mean(row[name]) for name in OURS) >= statistics.mean(row["PyOD AE"])
        for row in table.values()
    )
    print(f"the best of ours on each table: {best} of {len(table)}")


def count(table: dict[str, dict[str, list[float]]]) -> int:
    return sum(len(next(iter(row.values()))) for row in table.values())


if __name__ == "__main__":
    sys.exit(exit_code(main))
