"""A multi-scale quantizer of maps as one of whole latents."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vqtok.quantizers.base import (
    Quantized,
    Quantizer,
    check_codes,
    check_latents,
    check_num_codebooks,
)
from vqtok.quantizers.multiscale import MultiScaleQuantizer
from vqtok.quantizers.usage import usage_of_columns


class PyramidQuantizer(Quantizer):
    """A latent holds a whole map [S, S, d], and its Q slots the codes of all scales of the map.

    So an image in tiles has a grid of codes like any: one place a tile, coarse to fine in its
    slots. The first slots are a coarser description; a scale that is not whole adds nothing.

    Args:
        layer: a :class:`MultiScaleQuantizer` whose first scale is 1. D is S * S * d, and Q the sum
            of the squared scales.

    Losses: the layer's. Metrics: ``perplexity`` and ``usage`` of each slot, ``dead`` of all, [Q].
    """

    def __init__(self, layer: Quantizer) -> None:
        super().__init__()
        if not isinstance(layer, MultiScaleQuantizer) or layer.scales[0] != 1:
            raise ValueError("a PyramidQuantizer needs a MultiScaleQuantizer that begins at 1")
        self.config: dict[str, Any] = {"type": "pyramid", "layer": layer.config}
        self.layer: MultiScaleQuantizer = layer
        self.side = layer.scales[-1]
        self.dim = self.side**2 * layer.dim
        ends = [sum(s**2 for s in layer.scales[: n + 1]) for n in range(len(layer.scales))]
        self.ends = tuple(ends)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return self.layer.codebook_sizes * self.ends[-1]

    def forward(
        self, latents: Tensor, mask: Tensor | None = None, *, num_codebooks: int | None = None
    ) -> Quantized:
        check_latents(latents, self.dim, mask)
        used = check_num_codebooks(num_codebooks, self.ends[-1])
        shape = (*latents.shape[:-1], self.side, self.side, self.layer.dim)
        grid = None if mask is None else mask[..., None, None].expand(shape[:-1])
        result = self.layer(latents.reshape(shape), grid)
        codes = result.codes[..., :used, 0]
        quantized = result.quantized.flatten(-3)
        if used < self.ends[-1]:
            coarse = self.embed(codes).to(latents.dtype)
            quantized = latents + (coarse - latents).detach() if latents.requires_grad else coarse
        valid = None if mask is None else mask.flatten()
        metrics = self._usage(codes.flatten(0, -2), valid, result.metrics["dead"])
        return Quantized(quantized, codes, result.losses, metrics)

    def embed(self, codes: Tensor) -> Tensor:
        check_codes(codes, self.codebook_sizes)
        whole = max(end for end in self.ends if end <= codes.shape[-1])
        return self.layer.embed(codes[..., :whole, None]).flatten(-3)

    def metrics(self, codes: Tensor, valid: Tensor | None) -> dict[str, Tensor]:
        spread = None if valid is None else valid[:, None].expand(codes.shape).flatten()
        return self._usage(codes, valid, self.layer.metrics(codes.reshape(-1, 1), spread)["dead"])

    def _usage(self, codes: Tensor, valid: Tensor | None, dead: Tensor) -> dict[str, Tensor]:
        size = self.layer.codebook_sizes[0]
        found = usage_of_columns(codes, size, valid, all_ranks=self.training)
        return {**found, "dead": dead.expand(codes.shape[-1])}

    def initialize(self, latents: Tensor, mask: Tensor | None = None) -> None:
        shape = (*latents.shape[:-1], self.side, self.side, self.layer.dim)
        grid = None if mask is None else mask[..., None, None].expand(shape[:-1])
        self.layer.initialize(latents.reshape(shape), grid)
