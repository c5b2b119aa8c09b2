"""What layers on samples ask of their input."""

from __future__ import annotations

from torch import Tensor


def check_waves(waves: Tensor, hop: int) -> None:
    """Raise ValueError unless waves are [B, T] with T a multiple of ``hop``."""
    if waves.ndim != 2 or waves.shape[1] % hop:
        raise ValueError(
            f"waves must be [B, T] with T a multiple of {hop}, not {list(waves.shape)}"
        )
