"""A VAE on binarised MNIST: evidence lower bound, importance-weighted bound, active units.

    python scripts/vae_mnist.py mnist.npz [--steps 3000] [--out FOLDER]

The .npz holds training and test images, uint8 [N, 28, 28]. Binarisation is static: one draw per
image, with probability pixel / 255, seed 0. Bounds are in nats per image, on test images, their
draws seeded: the ELBO with 1 draw from the posterior, the importance-weighted bound (Burda et al.
2015, arXiv:1509.00519) with 50, and with 500 on the first 500 images. --out gets pictures:
reconstructions, samples, traversals, interpolations.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vqtok.autoencoders import variant
from vqtok.autoencoders.bounds import importance_bound
from vqtok.cli import exit_code
from vqtok.training import default_config, fit
from vqtok.training.page import autoencoder_page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--latents", type=int, default=32)
    parser.add_argument("--hidden", type=int, nargs="*", default=[512, 256])
    parser.add_argument("--warmup", type=int, nargs="*", default=[0, 1000])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    train, test = load(args.data)
    print(f"{len(train):,} training and {len(test):,} test images, statically binarised")
    print(f"{'':24} {'-ELBO':>8} {'KL':>7} {'IW-50':>8} {'IW-500':>8} {'active':>7}")
    for warmup in args.warmup:
        model = variant(
            "vae",
            tuple(train.shape[1:]),
            code_size=args.latents,
            hidden=args.hidden,
            likelihood="bernoulli",
            scaling="none",
            warmup=warmup,
        )
        config = default_config(steps=args.steps, learning_rate=1e-3, average_decay=0.999)
        model = fit(model, train, config, held_out=0.0, name="vae").model
        means = model.transform(test)
        active = int((means.var(0, correction=0) > 0.01).sum())
        bounds = [
            -float(importance_bound(model, test[: 2000 if draws < 500 else 500], draws).mean())
            for draws in (1, 50, 500)
        ]
        with torch.no_grad():
            kl = float(model.eval()(test).losses["kl"])
        label = f"KL warm-up {warmup} steps"
        print(
            f"{label:24} {bounds[0]:8.2f} {kl:7.2f} {bounds[1]:8.2f} {bounds[2]:8.2f} "
            f"{active:4d}/{args.latents}",
            flush=True,
        )
        if args.out:
            args.out.mkdir(parents=True, exist_ok=True)
            autoencoder_page(model, test[:512]).write(args.out / f"vae_{warmup}.png")


def load(path: Path) -> tuple[Tensor, Tensor]:
    with np.load(path) as file:
        names = {
            "train": ("x_train", "train_x", "X", "train_images", "train"),
            "test": ("x_test", "test_x", "X_test", "test_images", "test"),
        }
        found = []
        for kind, keys in names.items():
            key = next((key for key in keys if key in file), None)
            if key is None:
                raise SystemExit(f"{path} has no {kind} images among {', '.join(file)}")
            found.append(file[key].reshape(-1, 1, 28, 28))
    generator = torch.Generator().manual_seed(0)
    pair = [torch.from_numpy(images).float() / 255 for images in found]
    train, test = ((torch.rand(x.shape, generator=generator) < x).float() for x in pair)
    return train, test


if __name__ == "__main__":
    sys.exit(exit_code(main))
