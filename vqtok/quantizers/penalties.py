"""Losses that keep a codebook spread out: of the embeddings, or of how they are used."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vqtok.quantizers.soft_codes import softmax_code_losses


def orthogonal(rows: Tensor, chosen: Tensor, table: Tensor, valid: Tensor | None) -> Tensor:
    """||C C^T - I||^2 / K^2 of the unit embeddings C [K, D] (Shin et al., 2021,
    arXiv:2112.00384), from the D x D matrix C^T C: no K x K matrix."""
    unit = F.normalize(table, dim=-1)
    size = len(unit)
    return ((unit.T @ unit).square().sum() - size).clamp_min(0) / size**2


def diversity(rows: Tensor, chosen: Tensor, table: Tensor, valid: Tensor | None) -> Tensor:
    """log K minus the entropy of the mean soft code, a softmax of minus the squared distances in
    units of the mean squared distance to the chosen embedding. Holds an N x K matrix."""
    with torch.no_grad():
        distance = (rows - chosen).square().sum(-1)
        hits = torch.ones_like(distance) if valid is None else valid.to(distance.dtype)
        unit = ((hits * distance).sum() / hits.sum().clamp_min(1)).clamp_min(1e-12)
    logits = (2 * rows @ table.T - table.square().sum(-1)) / unit
    return softmax_code_losses(logits, valid)["diversity"]


PENALTIES: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]] = {
    "orthogonal": orthogonal,
    "diversity": diversity,
}
