"""Smaller weights: float16's precision, kept in float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def round_to_half(model: nn.Module) -> None:
    """Round every floating tensor of a model to float16's precision, where its range allows.

    Saved tokenizers then take two bytes a weight, and are the model that was scored.
    """
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(_rounded(value))


def _rounded(value: Tensor) -> Tensor:
    narrow = value.half().float()
    return narrow if bool(narrow.isfinite().all()) else value
