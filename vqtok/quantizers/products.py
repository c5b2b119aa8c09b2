"""Largest dot products as an exact lookup."""

from __future__ import annotations

import torch
from torch import Tensor

from vqtok import ops


def largest_product(
    rows: Tensor, table: Tensor, bias: Tensor | None = None, *, check: bool = True
) -> Tensor:
    """The k that maximises ``rows . table[k] + bias[k]``, without an N x K matrix.

    A further coordinate lifts all embeddings to one norm; then the largest product is the
    smallest distance, and :func:`vqtok.ops.nearest` finds it, independent of batch size and
    threads, which a matrix product is not.

    Args:
        rows: float [N, D].
        table: float [K, D].
        bias: float [K].
        check: refuse NaN and Inf.

    Returns:
        int64 [N].
    """
    columns = table.double()
    if bias is not None:
        columns = torch.cat([columns, bias.double()[:, None]], dim=1)
        rows = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)
    square = columns.square().sum(dim=1)
    lift = (square.max() - square).clamp_min(0).sqrt()
    lifted = torch.cat([columns, lift[:, None]], dim=1)
    flat = torch.cat([rows, torch.zeros_like(rows[:, :1])], dim=1)
    return ops.nearest(flat, lifted, check=check)
