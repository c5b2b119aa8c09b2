"""Codes that are near the latents and cheap: entropy-constrained vector quantization.

Chou, Lookabaugh and Gray (1989), "Entropy-constrained vector quantization", with the integer prior
as the measure of bits (vqtok.ops.prior), codebook after codebook in the order they are coded in.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqtok.errors import UsageError
from vqtok.ops.prior import MAX_WEIGHT, STEPS_PER_BIT, Wanted, value_bits
from vqtok.quantizers.base import Quantizer
from vqtok.tokens.header import MAX_RATE_WEIGHT
from vqtok.tokens.prior import Prior
from vqtok.tokens.prior_tensors import MAX_OFFSET

_HEADROOM = 2.0
"""How far beyond the outermost embedding targets are still told apart."""


class Choice:
    """Chooses codes for latents by squared distance plus weighted bits.

    Args:
        prior: what bits are counted by.
        quantizer: embeddings of its codebooks add up to what stands for the latents.
        num_codebooks: of the first q.
        rate_weight: what a bit is worth: this many percent of the variance of the first codebook's
            embeddings, in squared distance; in (0, 100].

    Raises:
        ValueError: ``rate_weight`` is out of range.
        UsageError: the embeddings of this quantizer do not add up.
    """

    def __init__(
        self, prior: Prior, quantizer: Quantizer, num_codebooks: int, rate_weight: float
    ) -> None:
        if not 0 < rate_weight <= MAX_RATE_WEIGHT:
            raise ValueError(f"rate_weight must be in [0, {MAX_RATE_WEIGHT}], not {rate_weight}")
        tables = [table.double().numpy() for table in additive_tables(quantizer)]
        dim = tables[0].shape[1]
        variance = float(tables[0].var(axis=0).sum())
        furthest = max(float(np.abs(table).max()) for table in tables)
        self._limit = (1 << value_bits(dim)) - 1
        self._scale = self._limit / (_HEADROOM * furthest)
        self._tables = [np.rint(t * self._scale).astype(np.int16) for t in tables[:num_codebooks]]
        weight = rate_weight / 100 * variance * self._scale**2 / STEPS_PER_BIT
        self._weights = [_fixed_point(weight)] * num_codebooks
        self._prior = prior

    def __call__(self, latents: Tensor, before: Tensor | None = None) -> Tensor:
        """Codes int64 [A, B, q] on the CPU of latents [A, B, D].

        ``before``: codes [n, B, q] of the rows before, where they are known.
        """
        known = 0 if before is None else len(before)
        count, columns = len(self._tables), latents.shape[1]
        planes = np.zeros((count, known + len(latents), columns), np.uint32)
        if before is not None:
            planes[:, :known] = np.moveaxis(before.numpy(), -1, 0)
        left = np.rint(latents.detach().cpu().double().numpy() * self._scale)
        left = left.clip(-4 * self._limit, 4 * self._limit).astype(np.int32)
        for q, (table, weight) in enumerate(zip(self._tables, self._weights, strict=True)):
            targets = np.zeros((*planes.shape[1:], table.shape[1]), np.int16)
            targets[known:] = left.clip(-self._limit, self._limit)
            following = self._tables[q + 1] if q + 1 < count else None
            wanted = Wanted(targets, table, *weight, known, following)
            self._prior.choose_plane(planes, q, wanted)
            left -= table[planes[q, known:]]
        codes: NDArray[np.int64] = np.moveaxis(planes[:, known:], 0, -1).astype(np.int64)
        return torch.from_numpy(np.ascontiguousarray(codes))


class StreamedChoice:
    """A choice that goes on: rows come in pieces, cut in the same places every time."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._before: Tensor | None = None

    def __call__(self, latents: Tensor) -> Tensor:
        """Codes int64 [A, B, q] of the next rows of latents [A, B, D]."""
        codes = self._choice(latents, self._before)
        seen = codes if self._before is None else torch.cat([self._before, codes])
        self._before = seen[-MAX_OFFSET:]
        return codes


def additive_tables(quantizer: Quantizer) -> list[Tensor]:
    """float32 [K, D] for each codebook, whose rows add up to what codes stand for.

    Raises UsageError for a quantizer whose codes do not simply add up.
    """
    sizes = quantizer.codebook_sizes
    embed = partial(_embed, quantizer)
    tried = torch.stack([torch.arange(64) * (2 * c + 37) % k for c, k in enumerate(sizes)], 1)
    tables = []
    try:
        for c, size in enumerate(sizes):
            codes = torch.zeros(size, c + 1, dtype=torch.int64)
            codes[:, c] = torch.arange(size)
            table = embed(codes)
            tables.append(table - embed(codes[:1, :c]) if c else table)
        found = embed(tried)
    except ValueError:  # these are no codes of it
        found = torch.zeros(0)
    wanted = torch.stack([t[codes] for t, codes in zip(tables, tried.T, strict=False)] or [found])
    if found.ndim != 2 or not torch.allclose(
        found, wanted.sum(0), rtol=1e-3, atol=1e-3 * float(found.abs().max())
    ):
        raise UsageError(
            "rate_weight needs a quantizer whose codebooks add up (plain, residual, grouped), not "
            f"{quantizer.config.get('type')!r}"
        )
    return tables


@torch.no_grad()
def _embed(quantizer: Quantizer, codes: Tensor) -> Tensor:
    weights = [*quantizer.parameters(), *quantizer.buffers()]
    device = weights[0].device if weights else torch.device("cpu")
    return quantizer.embed(codes.to(device)).float().cpu()


def _fixed_point(weight: float) -> tuple[int, int]:
    """(w, s) with w / 2**s near a weight, w in [0, MAX_WEIGHT]."""
    shift = 20
    while shift and weight * 2**shift > MAX_WEIGHT:
        shift -= 1
    return min(round(weight * 2**shift), MAX_WEIGHT), shift
