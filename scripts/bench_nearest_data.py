"""Rows and codebooks that bench_nearest.py looks up, made from what the package holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from vqtok import ops
from vqtok.samples import photos


@dataclass(frozen=True)
class Case:
    """One problem: x [N, D] and codebook [K, D], float32 and contiguous."""

    x: Tensor
    codebook: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        return (*self.x.shape, len(self.codebook))


def gaussian(rows: int, dim: int, size: int) -> Case:
    generator = torch.Generator().manual_seed(0)
    codebook = torch.randn(size, dim, generator=generator)
    return Case(torch.randn(rows, dim, generator=generator), codebook)


def adversarial(rows: int, dim: int, size: int) -> Case:
    """Duplicate codes and codes 1e-7 apart, rows on them and halfway between two."""
    generator = torch.Generator().manual_seed(1)
    codebook = torch.randn(size, dim, generator=generator)
    codebook[size // 2 :: 5] = codebook[1]
    codebook[size // 3 :: 7] = codebook[2] * (1 + 1e-7)
    codebook[size // 4 :: 2] *= 1 + 1e-7 * torch.randn(1, generator=generator)
    spread = codebook[size // 4 :: 2].shape[0]
    codebook[size // 4 :: 2] = codebook[:spread] * (1 + 1e-7)
    x = torch.randn(rows, dim, generator=generator)
    picks = torch.randint(size, (2, rows), generator=generator)
    x[::3] = codebook[picks[0]][::3]
    x[1::3] = 0.5 * (codebook[picks[0]] + codebook[picks[1]])[1::3]
    return Case(x, codebook)


def images() -> list[Tensor]:
    """The bundled photos: uint8 [3, H, W]."""
    return [
        torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)
        for path in photos()
    ]


@cache
def photo_latents() -> Tensor:
    """What the encoder of the bundled tokenizer makes of the photos, at eight offsets: [N, 32]."""
    from vqtok import Tokenizer

    tokenizer = Tokenizer.from_pretrained("photo")
    seen: list[Tensor] = []
    quantizer = tokenizer.autoencoder.quantizer
    hook = quantizer.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].detach().float().flatten(0, -2).clone())
    )
    for offset in range(8):
        for image in images():
            tokenizer.encode(image[None, :, offset:, (3 * offset) % 8 :])
    hook.remove()
    return torch.cat(seen)


@cache
def pixel_patches() -> Tensor:
    """Patches of 16 x 16 pixels of the photos, every 3 pixels: [N, 768], in [-1, 1]."""
    patches = [F.unfold(image[None].float(), 16, stride=3)[0].T for image in images()]
    return torch.cat(patches) / 127.5 - 1


def resample(pool: Tensor, rows: int, dim: int, size: int) -> Case:
    """Rows of the pool in a fixed shuffle, `dim` principal components of them, a k-means codebook.

    Principal components keep their variances: a few large ones, heavy tails, near duplicates.
    """
    generator = torch.Generator().manual_seed(2)
    pool = pool[torch.randperm(len(pool), generator=generator)]
    if dim < pool.shape[1]:
        centred = pool - pool.mean(dim=0)
        _, axes = torch.linalg.eigh(centred.T @ centred)
        pool = (centred @ axes[:, -dim:].flip(1)).contiguous()
    if dim > pool.shape[1]:
        raise SystemExit(f"this data has at most {pool.shape[1]} dimensions, not {dim}")
    codebook = pool[torch.randperm(len(pool), generator=generator)[:size]].clone()
    for _ in range(4):
        counts, sums = ops.ema_update(pool, ops.nearest(pool, codebook), size)
        codebook = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), codebook)
    repeats = -(-rows // len(pool))
    return Case(pool.repeat(repeats, 1)[:rows].contiguous(), codebook.contiguous())


def latents(rows: int, dim: int, size: int) -> Case:
    """Encoder outputs of the bundled photo tokenizer; its first codebook where the shape is its."""
    from vqtok import Tokenizer

    case = resample(photo_latents(), rows, dim, size)
    first = Tokenizer.from_pretrained("photo").autoencoder.quantizer.layers[0].embeddings
    if first.shape != (size, dim):
        return case
    return Case(case.x, first.detach().clone())


def patches(rows: int, dim: int, size: int) -> Case:
    """Heavy-tailed: raw patches of the bundled photos."""
    side = 4 if dim <= 48 else 8 if dim <= 192 else 16
    pool = pixel_patches().view(-1, 3, 16, 16)[:, :, :side, :side].flatten(1)
    return resample(pool, rows, dim, size)


DATA: dict[str, Callable[[int, int, int], Case]] = {
    "gaussian": gaussian,
    "latents": latents,
    "patches": patches,
    "adversarial": adversarial,
}
