"""Which codes are used: the metrics that every quantizer reports, and their one definition."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vqtok.quantizers import distributed

DECAY = 0.99
DEAD_BELOW = 0.1

_MOST_COUNTED = 1 << 16  # codes of a product that are counted one by one


class Usage(nn.Module):
    """What the codes of one codebook tell of how it is used, each [1]:

    - ``perplexity``: e to the entropy of the batch's codes, 1..K.
    - ``usage``: the fraction of the K codes that the batch holds.
    - ``dead``: the fraction of the K codes that hold less than a tenth of a fair share (1/K) of
      the recent positions: running counts, which forget 1 % at each batch. Of batches as small
      as a few positions a code in all that time it says little.

    Only positions that count are counted. In training the batch is that of all ranks together,
    and joins the running counts; evaluation reads them. They are no state: nothing depends on
    them, they are not saved, and until training has counted a batch (a model that was loaded)
    ``dead`` is of the batch alone. Nothing here waits for the device.

    A product of factors (FSQ's levels, LFQ's bits) with more than 65,536 codes is counted factor
    by factor, since 2^63 counts fit nowhere. There ``dead`` is the fraction of codes that hold a
    dead level: half of them if one bit is stuck. (Others may never be chosen, too, but a fair
    share of so many codes is less than a position, so that nobody could tell.) ``perplexity`` and
    ``usage`` are of each code there, too, but of this rank's positions.

    Args:
        factors: the numbers of levels whose product is K, at most 2^63; least significant first.
    """

    def __init__(self, *factors: int) -> None:
        super().__init__()
        self.size = math.prod(factors)
        self.factors = factors if self.size > _MOST_COUNTED else (self.size,)
        self.register_buffer("recent", torch.zeros(sum(self.factors)), persistent=False)
        self.recent: Tensor

    @torch.no_grad()
    def forward(self, codes: Tensor, valid: Tensor | None) -> dict[str, Tensor]:
        """The metrics of codes int64 [N], of which those count where bool [N] is True."""
        counts = self._count(codes, valid)
        if self.training:
            counts = distributed.sum_over_ranks(counts)
            self.recent.mul_(DECAY).add_(counts)
        one = len(self.factors) == 1
        batch = usage_of_counts(counts) if one else _usage_by_sorting(codes, self.size, valid)
        recent = torch.where(self.recent.sum() > 0, self.recent, counts)
        parts = torch.split(recent, list(self.factors))
        living = torch.stack([1 - is_dead(part).float().mean() for part in parts]).prod()
        return {**batch, "dead": (1 - living)[None]}

    def _count(self, codes: Tensor, valid: Tensor | None) -> Tensor:
        """How many positions chose each level of each factor, int64 [sum of factors]."""
        if len(self.factors) == 1:
            return code_counts(codes, self.size, valid)
        counts = []
        for factor in self.factors:
            counts.append(code_counts(codes % factor, factor, valid))
            codes = codes // factor
        return torch.cat(counts)


def is_dead(counts: Tensor, below: float = DEAD_BELOW) -> Tensor:
    """bool [K]: the codes whose count is less than ``below`` times the mean of counts [K]."""
    return counts < below * counts.float().mean()


@torch.no_grad()
def usage_of_counts(counts: Tensor) -> dict[str, Tensor]:
    """``perplexity`` and ``usage`` [1] of the counts [K] of a batch."""
    share = counts.float() / counts.sum().clamp_min(1)
    return {
        "perplexity": torch.special.entr(share).sum().exp()[None],
        "usage": (counts > 0).float().mean()[None],
    }


def code_counts(codes: Tensor, codebook_size: int, valid: Tensor | None) -> Tensor:
    """How many valid positions of this rank chose each code, int64 [K]."""
    hits = torch.ones_like(codes) if valid is None else valid.long()
    counts = torch.zeros(codebook_size, dtype=torch.int64, device=codes.device)
    return counts.scatter_add_(0, codes, hits)


@torch.no_grad()
def usage_of_codes(
    codes: Tensor, codebook_size: int, valid: Tensor | None, *, all_ranks: bool = False
) -> dict[str, Tensor]:
    """``perplexity`` and ``usage`` [1] of codes [N], in memory that does not grow with K.

    ``all_ranks``: of all ranks' codes together, if there are at most 65,536.
    """
    if codebook_size > _MOST_COUNTED:
        return _usage_by_sorting(codes, codebook_size, valid)
    counts = code_counts(codes, codebook_size, valid)
    return usage_of_counts(distributed.sum_over_ranks(counts) if all_ranks else counts)


def _usage_by_sorting(codes: Tensor, codebook_size: int, valid: Tensor | None) -> dict[str, Tensor]:
    """:func:`usage_of_counts` of codes [N], in memory that doesn't grow with the codebook."""
    hits = torch.ones_like(codes) if valid is None else valid.long()
    ordered, order = codes.sort()
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    runs = (new.long().cumsum(0) - 1).clamp_min(0)
    counts = torch.zeros_like(codes).scatter_add_(0, runs, hits[order])
    share = counts.float() / counts.sum().clamp_min(1)
    return {
        "perplexity": torch.special.entr(share).sum().exp()[None],
        "usage": ((counts > 0).float().sum() / float(codebook_size))[None],
    }


@torch.no_grad()
def usage_of_columns(
    codes: Tensor, codebook_size: int, valid: Tensor | None, *, all_ranks: bool = False
) -> dict[str, Tensor]:
    """``perplexity`` and ``usage`` [Q] of the columns of codes [N, Q], each of a codebook of K."""
    Q = codes.shape[1]
    if codebook_size > _MOST_COUNTED:
        found = [_usage_by_sorting(column, codebook_size, valid) for column in codes.unbind(1)]
        return {name: torch.cat([one[name] for one in found]) for name in found[0]}
    places = codes + codebook_size * torch.arange(Q, device=codes.device)
    spread = None if valid is None else valid[:, None].expand(-1, Q).flatten()
    counts = code_counts(places.flatten(), Q * codebook_size, spread)
    counts = (distributed.sum_over_ranks(counts) if all_ranks else counts).reshape(Q, codebook_size)
    share = counts.float() / counts.sum(1, keepdim=True).clamp_min(1)
    return {
        "perplexity": torch.special.entr(share).sum(1).exp(),
        "usage": (counts > 0).float().mean(1),
    }
