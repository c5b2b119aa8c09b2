"""Quantizers side by side: what grouped and summed quantizers have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vqtok.quantizers.base import Quantizer, join


class SideBySideQuantizer(Quantizer):
    """Several quantizers; the codes are those of the first, then those of the second, and so on.

    Args:
        kind: the type in the config.
        layers: at least one, of any kind.
    """

    def __init__(self, kind: str, layers: Sequence[Quantizer]) -> None:
        super().__init__()
        if not layers:
            raise ValueError(f"a {type(self).__name__} needs at least one layer")
        self.config: dict[str, Any] = {
            "type": kind,
            "layers": [layer.config for layer in layers],
        }
        self.layers = nn.ModuleList(layers)

    @property
    def learns_from_output(self) -> bool:
        return any(layer.learns_from_output for layer in self._quantizers())

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return tuple(size for layer in self._quantizers() for size in layer.codebook_sizes)

    def metrics(self, codes: Tensor, valid: Tensor | None) -> dict[str, Tensor]:
        parts = torch.split(codes, self._shares(codes.shape[-1]), dim=-1)
        layers = zip(self._quantizers(), parts, strict=True)
        return join([layer.metrics(part, valid) for layer, part in layers if part.shape[-1]])

    def _quantizers(self) -> list[Quantizer]:
        return [layer for layer in self.layers if isinstance(layer, Quantizer)]

    def _shares(self, used: int) -> list[int]:
        """How many of the first ``used`` codebooks each layer holds."""
        shares: list[int] = []
        for layer in self._quantizers():
            shares.append(min(used - sum(shares), len(layer.codebook_sizes)))
        return shares
