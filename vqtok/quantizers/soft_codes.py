"""Losses of soft codes: each position certain, the whole batch diverse."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vqtok.quantizers import distributed


def soft_code_losses(
    shares: Sequence[Tensor], position_entropy: Tensor, valid: Tensor | None
) -> dict[str, Tensor]:
    """What makes each position certain and the whole batch diverse (Yu et al., 2023,
    arXiv:2310.05737), both at least 0 and over all ranks together:

    - ``entropy``: mean entropy of a position's soft code, in nats.
    - ``diversity``: log K minus the entropy of the mean soft code, summed over the factors.

    Args:
        shares: for each independent factor of the codebook, probabilities [N, K_factor].
        position_entropy: [N], nats, of all factors together.
        valid: bool [N], the positions that count; None for all.
    """
    hits = torch.ones_like(position_entropy) if valid is None else valid.to(position_entropy.dtype)
    sums = [hits @ share for share in shares]
    parts = [*sums, (hits @ position_entropy)[None], hits.sum()[None]]
    summed = distributed.sum_over_ranks(torch.cat(parts))
    *totals, entropy, count = torch.split(summed, [len(part) for part in parts])
    present = count.clamp_min(1)
    diversity = torch.stack([_missing_entropy(total / present) for total in totals]).sum()
    return {
        "entropy": (entropy / present).squeeze(0),
        "diversity": torch.where(count.squeeze(0) > 0, diversity, 0.0),
    }


def _missing_entropy(share: Tensor) -> Tensor:
    """log K minus the entropy of shares [K]; at least 0, rounding included."""
    # Clamped because the slope of -p log p is infinite at 0.
    entropy = torch.special.entr(share.clamp_min(1e-12)).sum()
    missing: Tensor = (math.log(len(share)) - entropy).clamp_min(0)
    return missing


def softmax_code_losses(logits: Tensor, valid: Tensor | None) -> dict[str, Tensor]:
    """:func:`soft_code_losses` of the softmax of logits [N, K]."""
    log_share = F.log_softmax(logits, dim=-1)
    share = log_share.exp()
    return soft_code_losses([share], -(share * log_share).sum(-1), valid)


def bit_code_losses(logits: Tensor, group_bits: int, valid: Tensor | None) -> dict[str, Tensor]:
    """:func:`soft_code_losses` of independent bits, without a tensor of 2^bits.

    Given the latents, bits are independent, so the entropy of a position is the sum over its
    bits. In the mean over positions they are not: groups of bits are taken as joint codes, and
    only groups as independent (Zhao et al., 2024, arXiv:2406.07548, section 3.2).

    Args:
        logits: [N, bits], log odds of each bit.
        group_bits: bits of a group; memory is N * bits / group_bits * 2^group_bits.
        valid: bool [N] or None.
    """
    size = logits.abs()
    position_entropy = (F.softplus(-size) + size * torch.sigmoid(-size)).sum(-1)
    shares = [_joint(group) for group in torch.split(logits, group_bits, dim=-1)]
    return soft_code_losses(shares, position_entropy, valid)


def _joint(logits: Tensor) -> Tensor:
    """Probabilities [N, 2^g] of all values of g independent bits with log odds [N, g]."""
    bits = logits.shape[-1]
    values = torch.arange(1 << bits, device=logits.device)
    table = (values[:, None] >> torch.arange(bits, device=logits.device)) & 1
    return F.softmax(logits @ table.to(logits.dtype).T, dim=-1)
