"""What a denoising autoencoder sees instead of its data (Vincent et al. 2008)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class Corruption(nn.Module, ABC):
    """Damages inputs in training; the target stays clean. In evaluation nothing is damaged.

    Attributes:
        config: JSON-able; rebuilds the corruption.
    """

    config: dict[str, Any]

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """float [B, ...] to the same shape and dtype."""


def check_fraction(name: str, fraction: float) -> None:
    """ValueError unless 0 <= fraction <= 1."""
    if not 0 <= fraction <= 1:
        raise ValueError(f"{name} must be in 0..1, not {fraction}")
