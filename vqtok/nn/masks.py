"""Masks of padded sequences.

Sequences of a batch are padded at the end: ``mask`` bool [B, T] is True up to each one's length,
which is at least 1. What stands in the padding, NaN included, changes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mask_of(lengths: Tensor, length: int | None = None) -> Tensor:
    """bool [B, T], True up to each of the lengths int64 [B]; T is the longest by default."""
    total = int(lengths.max()) if length is None else length
    return torch.arange(total, device=lengths.device) < lengths[:, None]


def zero_padding(sequences: Tensor, mask: Tensor | None) -> Tensor:
    """[B, T] or [B, T, C] with 0 where the mask bool [B, T] is False, whatever was there."""
    if mask is None:
        return sequences
    return torch.where(mask.reshape(mask.shape + (1,) * (sequences.ndim - 2)), sequences, 0)


def check_mask(sequences: Tensor, mask: Tensor | None) -> None:
    """ValueError unless the mask is bool [B, T], and True up to a length of at least 1."""
    if sequences.ndim < 2 or sequences.shape[1] == 0:
        raise ValueError(f"sequences must be [B, T, ...] with T >= 1, not {list(sequences.shape)}")
    if mask is None:
        return
    if mask.dtype != torch.bool or mask.shape != sequences.shape[:2]:
        raise ValueError(
            f"mask must be bool {list(sequences.shape[:2])}, not {mask.dtype} {list(mask.shape)}"
        )
    if not bool((mask[:, 0].all()) & (mask[:, 1:] <= mask[:, :-1]).all()):
        raise ValueError("mask must be True up to each sequence's length, at least 1, then False")
