"""A picture of what the model makes of a few crops, and its score in dB."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from vqtok.files import atomic_write
from vqtok.tokenizer import Tokenizer

PREVIEW_NAME = "preview.png"
_COLUMNS = 8


def psnr(first: Tensor, second: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of uint8 images, each image's error averaged in dB."""
    error = (first.double() - second.double()).square().flatten(1).mean(1).clamp_min(1e-12)
    return float((10 * torch.log10(255.0**2 / error)).mean())


def save_preview(tokenizer: Tokenizer, images: Tensor, folder: Path) -> list[float]:
    """Write ``preview.png``: originals in the first row, then one row per number of codebooks.

    Args:
        tokenizer: any image tokenizer.
        images: uint8 [B, 3, H, W]; all are scored, the first few are drawn.
        folder: where the picture goes.

    Returns:
        The PSNR in dB with 1..Q codebooks.
    """
    size = (int(images.shape[2]), int(images.shape[3]))
    codes = tokenizer.encode(images)
    rows, scores = [images[:_COLUMNS]], []
    for used in range(1, tokenizer.num_codebooks + 1):
        decoded = tokenizer.decode(codes[..., :used], size=size).cpu()
        scores.append(round(psnr(images, decoded), 4))
        rows.append(decoded[:_COLUMNS])
    grid = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
    with atomic_write(folder / PREVIEW_NAME) as file:
        Image.fromarray(grid.permute(1, 2, 0).numpy()).save(file, format="png")
    return scores
