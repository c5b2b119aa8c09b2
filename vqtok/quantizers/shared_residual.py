"""Residual quantization with one codebook for all levels (Lee et al., 2022, arXiv:2203.01941)."""

from __future__ import annotations

from vqtok.quantizers.base import Quantizer
from vqtok.quantizers.residual import ResidualQuantizer


class SharedResidualQuantizer(ResidualQuantizer):
    """A :class:`ResidualQuantizer` whose levels are all the same quantizer.

    Every level looks up in, and in training moves, the one codebook.

    Args:
        layer: the quantizer, of one codebook.
        num_codebooks: number of levels Q.
        dropout, gradient: as for :class:`ResidualQuantizer`.
    """

    def __init__(
        self,
        layer: Quantizer,
        num_codebooks: int,
        *,
        dropout: float = 0.0,
        gradient: str = "straight_through",
    ) -> None:
        if num_codebooks < 1:
            raise ValueError(f"num_codebooks must be positive, not {num_codebooks}")
        super().__init__([layer], dropout=dropout, gradient=gradient)
        self.config = {
            "type": "shared_residual",
            "layer": layer.config,
            "num_codebooks": num_codebooks,
            "dropout": dropout,
            "gradient": gradient,
        }
        self.num_levels = num_codebooks

    def _quantizers(self) -> list[Quantizer]:
        return super()._quantizers() * self.num_levels
