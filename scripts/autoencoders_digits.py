"""Denoising, sparse and contractive autoencoders on the 1,797 digits that scikit-learn ships.

    python scripts/autoencoders_digits.py [--seeds 3] [--only denoising sparse contractive]

Every fifth sample is held out and reported; the others are trained on. Prints three tables.

- Denoising: noise of standard deviation 0.3 on pixels in [0, 1]; PSNR in dB of what is made of
  it, beside the noisy images, the best PCA and the linear minimum-mean-square-error filter.
- Sparse: unexplained variance with 8 active latents, and how many latents are dead.
- Contractive: the relative norm of the encoder's Jacobian (in units of the data's and the latents'
  variance) with the penalty, and without it at the same reconstruction error.
"""

from __future__ import annotations

import argparse
import statistics
import sys

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from vqtok.autoencoders import Autoencoder, variant
from vqtok.autoencoders.bottlenecks import IdentityBottleneck
from vqtok.autoencoders.corruptions import GaussianNoise
from vqtok.autoencoders.penalties import relative_jacobian_norm
from vqtok.cli import exit_code
from vqtok.nn import MLPDecoder, MLPEncoder
from vqtok.training import default_config, fit
from vqtok.training.baselines import PCA

SIGMA = 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--only", nargs="*", default=["denoising", "sparse", "contractive"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    digits = torch.from_numpy(load_digits().data).float() / 16
    held_out = torch.arange(len(digits)) % 5 == 0
    for name in args.only:
        TABLES[name](digits[~held_out], digits[held_out], args)


def db(made: Tensor, clean: Tensor) -> float:
    return float(-10 * torch.log10((made - clean).square().mean()))


def denoising(train: Tensor, test: Tensor, args: argparse.Namespace) -> None:
    noisy = test + SIGMA * torch.randn(test.shape, generator=torch.Generator().manual_seed(1))
    print(f"denoising, sigma {SIGMA}: PSNR in dB on {len(test)} held-out digits", flush=True)
    print(f"  {'noisy':30} {db(noisy, test):6.2f}")
    best = max((db(PCA.fit(train, k).reconstruct(noisy), test), k) for k in range(1, 64))
    print(f"  {f'PCA, best of all ({best[1]})':30} {best[0]:6.2f}")
    mean = train.mean(0)
    covariance = torch.cov(train.T)
    gain = covariance @ torch.linalg.inv(covariance + SIGMA**2 * torch.eye(64))
    print(f"  {'linear MMSE':30} {db((noisy - mean) @ gain.T + mean, test):6.2f}")
    for label, noise in (("vanilla, 32 latents", 0.0), ("denoising", SIGMA)):
        scores = []
        for seed in range(args.seeds):
            model = (
                denoiser(noise)
                if noise
                else variant("vanilla", (64,), code_size=32, scaling="none")
            )
            config = default_config(
                steps=args.steps if noise else 2000,
                batch_size=256,
                learning_rate=2e-3,
                weight_decay=0.05 if noise else 0.0,
                average_decay=0.999,
                seed=seed,
            )
            made = fit(model, train, config, held_out=0.0).model.reconstruct(noisy)
            scores.append(db(made, test))
        print(f"  {label:30} {summary(scores)}", flush=True)


def denoiser(noise: float) -> Autoencoder:
    return Autoencoder(
        MLPEncoder([64], [512], 512, activation="gelu", output="gelu"),
        IdentityBottleneck(512),
        MLPDecoder([64], [512], 512, activation="gelu"),
        corruption=GaussianNoise(noise),
        likelihood="gaussian",
    )


def sparse(train: Tensor, test: Tensor, args: argparse.Namespace) -> None:
    print("sparse, 8 active latents: unexplained variance and dead latents")
    print(f"  {'':30} {'train':>16} {'held out':>16} {'L0':>5} {'dead':>6}")
    variance = (train - train.mean(0)).square().mean()
    pca = PCA.fit(train, 8)
    errors = [float((pca.reconstruct(x) - x).square().mean() / variance) for x in (train, test)]
    print(f"  {'PCA, 8 components':30} {errors[0]:16.4f} {errors[1]:16.4f} {8:5.1f}")
    for revive in (True, False):
        rows = []
        for seed in range(args.seeds):
            model = variant("sparse", (64,), k=8, scaling="none")
            if not revive:
                model.loss_weights["aux_k"] = 0.0
            config = default_config(steps=args.steps, learning_rate=4e-3, seed=seed)
            model = fit(model, train, config, held_out=0.0).model
            codes = model.transform(train)
            made = (model.reconstruct(x) - x for x in (train, test))
            rows.append(
                [
                    *(float(error.square().mean() / variance) for error in made),
                    float((codes != 0).sum(1).float().mean()),
                    float((codes != 0).any(0).logical_not().float().mean()),
                ]
            )
        columns = list(zip(*rows, strict=True))
        label = f"{codes.shape[1]} latents{'' if revive else ', no aux-k'}"
        print(
            f"  {label:30} {summary(columns[0], 4)} {summary(columns[1], 4)} "
            f"{statistics.mean(columns[2]):5.1f} {statistics.mean(columns[3]):6.1%}",
            flush=True,
        )


def contractive(train: Tensor, test: Tensor, args: argparse.Namespace) -> None:
    print(
        "contractive, 32 sigmoid latents, tied weights: relative Jacobian norm on held-out "
        "digits, beside that of the same without the penalty, stopped where it has the same error"
    )
    print(f"  {'weight':>8} {'held-out error':>18} {'relative norm':>18} {'without':>18}")
    found: dict[float, list[tuple[float, float, float]]] = {0.03: [], 0.1: [], 0.3: []}
    for seed in range(args.seeds):

        def measure(weight: float, steps: int, seed: int = seed) -> tuple[float, float]:
            model = variant("contractive", (64,), code_size=32, weight=weight, scaling="none")
            config = default_config(steps=steps, learning_rate=5e-3, seed=seed)
            model = fit(model, train, config, held_out=0.0).model
            error = float((model.reconstruct(test) - test).square().sum(1).mean())
            return error, relative_jacobian_norm(model.encode, test)

        plain = [measure(0.0, steps) for steps in (2000, 1400, 1000, 700, 500)]
        for weight, rows in found.items():
            error, norm = measure(weight, 2000)
            # Between the two runs without the penalty whose errors are next to this one.
            rows.append((error, norm, float(np.interp(error, *zip(*plain, strict=True)))))
    for weight, rows in found.items():
        cells = (f"{summary(list(column)):>18}" for column in zip(*rows, strict=True))
        print(f"  {weight:8.2f} {' '.join(cells)}", flush=True)


def summary(values: list[float], digits: int = 2) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} +- {spread:.{digits}f}"


TABLES = {"denoising": denoising, "sparse": sparse, "contractive": contractive}

if __name__ == "__main__":
    sys.exit(exit_code(main))
