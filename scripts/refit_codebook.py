"""Fit the codebook of a trained tokenizer anew, its networks as they are, to latents of many crops.

Lloyd's algorithm, in which codes that hardly anything chooses give way to halves of those that most
choose (the splitting of Linde, Buzo and Gray, 1980).

    python scripts/refit_codebook.py work/photo-lm-2 work/photos.txt work/photo-lm-3

Training moves a large codebook by batches that hold fewer latents than there are codes, and puts
codes that fell out of use at latents of such a batch, where few others are near. Prints what became
of the error and of the use of codes, on latents of other crops, too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from vqtok import ops
from vqtok.cli import exit_code
from vqtok.media import list_sources
from vqtok.quantizers import VectorQuantizer
from vqtok.tokenizer import ImageTokenizer, Tokenizer, to_unit_range
from vqtok.training import PhotoCrops
from vqtok.training.rounding import round_codebooks

STEADY = 4
"""Iterations at the end that split nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("photos")
    parser.add_argument("out", type=Path)
    parser.add_argument("--latents", type=int, default=1_600_000)
    parser.add_argument("--iterations", type=int, default=16)
    parser.add_argument("--share", type=float, default=0.3, help="of the mean: fewer is too few")
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--seed", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_pretrained(args.run)
    quantizer = tokenizer.autoencoder.quantizer
    if not isinstance(tokenizer, ImageTokenizer) or not isinstance(quantizer, VectorQuantizer):
        parser.error(f"{args.run} is no tokenizer of photos with a single codebook")
    options = {"size": args.crop, "batch_size": 8}
    sources = list_sources(args.photos)
    latents = latents_of(tokenizer, PhotoCrops(sources, seed=args.seed, **options), args.latents)
    others = PhotoCrops(sources, seed=args.seed + 1, **options)
    judges = latents_of(tokenizer, others, args.latents // 8)
    before = quantizer.embeddings.clone()
    after, counts = refit(latents, before, args.iterations, args.share, args.seed)
    quantizer.embeddings.copy_(after)
    quantizer.counts.copy_(counts / counts.sum() * quantizer.counts.sum())
    round_codebooks(tokenizer.autoencoder)
    for label, codebook in (("before", before), ("after", quantizer.embeddings)):
        for name, vectors in (("fitted", latents), ("other crops", judges)):
            print(f"{label}, {name}: {described(vectors, codebook)}")
    kept = ("latents", "iterations", "share", "crop", "seed")
    settings = {key: getattr(args, key) for key in kept}
    again = Tokenizer(
        tokenizer.autoencoder,
        name=tokenizer.name,
        training={**tokenizer.training, "refit": settings},
    )
    again.save_pretrained(args.out)


@torch.no_grad()
def latents_of(tokenizer: ImageTokenizer, crops: PhotoCrops, wanted: int) -> Tensor:
    """float32 [N, D]"""
    found: list[Tensor] = []
    each = crops.batch_size * (crops.size // tokenizer.downsample) ** 2
    for batch in crops.batches(0, -(-wanted // each)):
        pixels = to_unit_range(batch).contiguous(memory_format=torch.channels_last)
        found.append(tokenizer.autoencoder.encode(pixels).flatten(0, -2))
    return torch.cat(found)


def refit(
    latents: Tensor, codebook: Tensor, iterations: int, share: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Centers float32 [K, D] and how many latents each stands for, int64 [K]."""
    generator = torch.Generator().manual_seed(seed)
    for iteration in tqdm(range(iterations)):
        codes = ops.nearest(latents, codebook)
        counts, sums = ops.ema_update(latents, codes, len(codebook))
        means = sums / counts.clamp_min(1)[:, None]
        moved = torch.where(counts[:, None] > 0, means, codebook)
        if iteration < iterations - STEADY:
            few = (counts < share * counts.float().mean()).nonzero()[:, 0]
            most = counts.topk(len(few)).indices
            spread = (latents - codebook[codes]).square().mean().sqrt()
            step = 0.3 * spread * torch.randn(moved[few].shape, generator=generator)
            moved[few] = moved[most] + step
            moved[most] -= step
        codebook = moved
    counts, _ = ops.ema_update(latents, ops.nearest(latents, codebook), len(codebook))
    return codebook, counts


def described(latents: Tensor, codebook: Tensor) -> str:
    codes = ops.nearest(latents, codebook)
    counts = torch.bincount(codes, minlength=len(codebook)).float()
    entropy = torch.special.entr(counts / counts.sum()).sum() / torch.tensor(2.0).log()
    error = (latents - codebook[codes]).square().sum(1).mean()
    return (
        f"error {error:.4f}, usage {(counts > 0).float().mean():.1%}, entropy {entropy:.2f} bits, "
        f"{(counts < 0.1 * counts.mean()).float().mean():.1%} below a tenth of the mean"
    )


if __name__ == "__main__":
    sys.exit(exit_code(main))
