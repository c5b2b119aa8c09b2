"""Sparse dictionaries: linear encoder and decoder whose atoms have norm 1."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtok.nn.conv import Stack


class DictionaryEncoder(Stack):
    """How much each atom matches: linear, on samples minus a learned centre.

    Args:
        shape: of a sample, flattened.
        dim: D, number of atoms.
    """

    def __init__(self, shape: Sequence[int], dim: int) -> None:
        super().__init__()
        self.config = {"type": "dictionary", "shape": list(shape), "dim": dim}
        self.shape = tuple(shape)
        self.dim = dim
        self.layer = nn.Linear(math.prod(shape), dim)
        nn.init.zeros_(self.layer.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """float [B, *shape] -> [B, D]."""
        if tuple(inputs.shape[1:]) != self.shape:
            raise ValueError(
                f"samples must have shape {list(self.shape)}, not {list(inputs.shape[1:])}"
            )
        latents: Tensor = self.layer(inputs.flatten(1))
        return latents


class DictionaryDecoder(Stack):
    """Weighted sums of atoms, each of norm 1 whatever its parameters' scale.

    Inside an autoencoder, a dictionary encoder starts as the transpose (Gao et al. 2024,
    arXiv:2406.04093: prevents dead latents).

    Args:
        shape: of a sample.
        dim: D, number of atoms.
    """

    def __init__(self, shape: Sequence[int], dim: int) -> None:
        super().__init__()
        self.config = {"type": "dictionary", "shape": list(shape), "dim": dim}
        self.shape = tuple(shape)
        self.dim = dim
        self.atoms = nn.Parameter(F.normalize(torch.randn(dim, math.prod(shape)), dim=1))
        self.bias = nn.Parameter(torch.zeros(math.prod(shape)))

    @torch.no_grad()
    def start_from(self, samples: Tensor) -> None:
        """Point atoms to samples, float [N, *shape], from their mean: then fewer of them die.

        Each gets some noise, drawn from torch's global generator, so that none is like another.
        """
        rows = samples.flatten(1).float()
        chosen = torch.randint(len(rows), (self.dim,))
        if self.dim <= len(rows):
            chosen = torch.randperm(len(rows))[: self.dim]
        spread = rows.var(0).mean().sqrt() if len(rows) > 1 else 1.0
        noise = 0.2 * spread * torch.randn(self.atoms.shape)
        self.atoms.copy_(F.normalize(rows[chosen] - rows.mean(0) + noise, dim=1))

    @torch.no_grad()
    def pair(self, encoder: nn.Module) -> None:
        """Start an encoder as the transpose of these atoms."""
        if isinstance(encoder, DictionaryEncoder):
            encoder.layer.weight.copy_(self.atoms)

    def forward(self, latents: Tensor) -> Tensor:
        """[B, D] -> float [B, *shape]."""
        samples: Tensor = latents @ F.normalize(self.atoms, dim=1) + self.bias
        return samples.reshape(-1, *self.shape)
