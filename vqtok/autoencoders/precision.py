"""Losses and statistics are float32 at least, whatever the network computes in."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision widened; float32, float64 and integers as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
