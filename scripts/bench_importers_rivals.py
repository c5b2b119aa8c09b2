"""What bench_importers.py compares with: models of published sizes with random weights.

Their codebooks are filled with latents of a real photo or sound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image
from torch import Tensor, nn

from vqtok.samples import photos, sounds


@dataclass
class Rival:
    """A model of another package, or one written out after published code.

    ``encode``: [B, ...] inputs to codes [B, places, Q]; ``decode``: such codes to outputs, None if
    it has no decoder; ``inputs``: a batch of one; ``config``: as published; ``fill`` gives it a
    codebook that its latents use; ``lookup``: what holds its function that finds codes, and the
    name of that there; ``rename``: its names of tensors to the published ones; ``options``: of the
    import; ``exact``: as ``encode``, with the nearest codes to its latents by float64, not by its
    own arithmetic.
    """

    family: str
    model: nn.Module
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor] | None
    inputs: Tensor
    config: dict[str, Any]
    fill: Callable[[], None]
    lookup: tuple[Any, str]
    rename: Callable[[str], str] = str
    options: dict[str, Any] = field(default_factory=dict)
    exact: Callable[[Tensor], Tensor] | None = None

    def tensors(self) -> dict[str, Tensor]:
        """As published."""
        return {self.rename(name): value for name, value in self.model.state_dict().items()}


def photo(side: int) -> Tensor:
    """[1, 3, side, side], -1..1."""
    path = next(path for path in photos() if path.stem == "cat")
    image = Image.open(path).convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1


def sound(samples: int) -> Tensor:
    """[1, samples], full scale 1."""
    path = next(path for path in sounds() if "speech" in path.stem)
    wave, _ = soundfile.read(path, dtype="float32", frames=samples + 8000)
    wave = np.resize(wave[8000:], samples)
    return torch.from_numpy(wave)[None]


def fill(table: Tensor, rows: Tensor) -> None:
    """Codes around latents [N, D], so far that every level leaves something to the next."""
    chosen = rows[torch.randint(len(rows), (len(table),))]
    table.copy_(chosen + 0.9 * rows.std() * torch.randn_like(chosen))


def nearest(latents: Tensor, tables: list[Tensor]) -> Tensor:
    """Residual codes [n, Q] of latents [n, D]: each the nearest by float64."""
    codes = []
    for table in tables:
        distances = (latents.double()[:, None] - table.double()).square().sum(-1)
        codes.append(distances.argmin(-1))
        latents = latents - table[codes[-1]]
    return torch.stack(codes, -1)
