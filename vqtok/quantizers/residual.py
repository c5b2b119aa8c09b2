"""Residual quantization: each codebook codes what the ones before it left over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vqtok import ops
from vqtok.quantizers.base import (
    Quantized,
    Quantizer,
    as_rows,
    check_codes,
    check_latents,
    check_num_codebooks,
    combine,
    join,
    masked_mean_square,
    zero_masked,
)
from vqtok.quantizers.gradients import GRADIENTS
from vqtok.quantizers.vector import VectorQuantizer


class ResidualQuantizer(Quantizer):
    """A stack of quantizers on successive residuals (Zeghidour et al., 2021, arXiv:2107.03312).

    Args:
        layers: quantizers of one dimension; the first codes the latents, each next one what is
            left. The first q codes of a position are a coarser description of it, so one model
            serves Q rates.
        dropout: in training, each sample (first axis of the latents) uses, with this
            probability, only its first q codebooks, q uniform in 1..Q; the others code nothing
            and learn nothing from it.
        gradient: ``"straight_through"`` or ``"rotation"``, from the sum of the codebooks to the
            latents.

    Layers whose embeddings learn from the gradient of the output (:class:`ProjectedQuantizer`,
    as in DAC: Kumar et al., 2023, arXiv:2306.06546; IBQ; Gumbel) get it: then it passes through
    every layer, as each says, and through what it leaves to the next.

    Losses: ``commitment``, the mean squared distance of latents to the (constant) sum of the
    codebooks they use; the means over layers of the layers' other losses. The layers' own
    commitments are left out: the first residuals are large by design, and pulling them to zero
    squeezes the latents into the few dimensions that one codebook can code. (Not so if layers
    learn from the output: then their commitments, often in few dimensions of their own, are what
    keeps what they look up near what they find, and ``commitment`` is the mean of theirs.)
    """

    def __init__(
        self,
        layers: Sequence[Quantizer],
        *,
        dropout: float = 0.0,
        gradient: str = "straight_through",
    ) -> None:
        super().__init__()
        if not layers:
            raise ValueError("a ResidualQuantizer needs at least one layer")
        if len({layer.dim for layer in layers}) != 1:
            raise ValueError(f"layers differ in dim: {[layer.dim for layer in layers]}")
        if any(len(layer.codebook_sizes) != 1 for layer in layers):
            raise ValueError("each layer of a ResidualQuantizer must have one codebook")
        if not 0 <= dropout <= 1 or gradient not in GRADIENTS:
            raise ValueError(
                f"dropout must be in [0, 1] and gradient one of {tuple(GRADIENTS)}, "
                f"not {dropout} and {gradient!r}"
            )
        self.chained = any(layer.learns_from_output for layer in layers)
        if self.chained and gradient != "straight_through":
            raise ValueError(
                f"gradient {gradient!r} is for constant embeddings, and these layers learn from "
                "the output: give it to the quantizers inside them"
            )
        self.config: dict[str, Any] = {
            "type": "residual",
            "layers": [layer.config for layer in layers],
            "dropout": dropout,
            "gradient": gradient,
        }
        self.dim = layers[0].dim
        self.layers = nn.ModuleList(layers)
        self.dropout = dropout
        self.pass_gradient = GRADIENTS[gradient]

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return tuple(layer.codebook_sizes[0] for layer in self._quantizers())

    @property
    def learns_from_output(self) -> bool:
        return self.chained

    def forward(
        self, latents: Tensor, mask: Tensor | None = None, *, num_codebooks: int | None = None
    ) -> Quantized:
        check_latents(latents, self.dim, mask)
        used = check_num_codebooks(num_codebooks, len(self.codebook_sizes))
        layers = [
            layer for layer in self._quantizers()[:used] if isinstance(layer, VectorQuantizer)
        ]
        drops = self.training and self.dropout > 0
        if (
            mask is None
            and not drops
            and len(layers) == used
            and all(layer.is_plain for layer in layers)
        ):
            return self._look_up(latents, layers)
        with torch.autocast(latents.device.type, enabled=False):
            target = zero_masked(latents.float(), mask)
            keep = self._draw_num_codebooks(target, used)
            total = torch.zeros_like(target)
            results: list[Quantized] = []
            for index, layer in enumerate(self._quantizers()[:used]):
                active = mask
                if keep is not None:
                    still = keep > index
                    active = still if mask is None else still & mask
                result = layer(target - total, active)
                part = result.quantized if self.chained else result.quantized.detach()
                total = total + (part if keep is None else part * still[..., None])
                results.append(result)
            quantized = total if self.chained else self.pass_gradient(target, total)
        combined = combine(results, [1 / used] * used)
        losses = combined.losses
        if not self.chained:
            losses["commitment"] = masked_mean_square(target, total, mask)
        return Quantized(quantized.to(latents.dtype), combined.codes, losses, combined.metrics)

    def _look_up(self, latents: Tensor, layers: Sequence[VectorQuantizer]) -> Quantized:
        """The same where all layers are plain lookups and all positions count: in one pass,
        without whole residuals."""
        with torch.autocast(latents.device.type, enabled=False):
            target, _ = as_rows(latents, None)
            total, codes = ops.quantize(target.detach(), [layer.table() for layer in layers])
            quantized = self.pass_gradient(target, total)
            losses = {"commitment": masked_mean_square(target, total, None)}
        return Quantized(
            quantized.reshape(latents.shape).to(latents.dtype),
            codes.reshape(*latents.shape[:-1], len(layers)),
            losses,
            self.metrics(codes, None),
        )

    def metrics(self, codes: Tensor, valid: Tensor | None) -> dict[str, Tensor]:
        layers = zip(self._quantizers(), codes.unbind(-1), strict=False)
        return join([layer.metrics(column[:, None], valid) for layer, column in layers])

    def embed(self, codes: Tensor) -> Tensor:
        check_codes(codes, self.codebook_sizes)
        total = self._quantizers()[0].embed(codes[..., :1])
        for index in range(1, codes.shape[-1]):
            total = total + self._quantizers()[index].embed(codes[..., index : index + 1])
        return total

    def _quantizers(self) -> list[Quantizer]:
        return [layer for layer in self.layers if isinstance(layer, Quantizer)]

    def _draw_num_codebooks(self, latents: Tensor, used: int) -> Tensor | None:
        """int64 [...]: how many codebooks each position uses; None when all use all."""
        if not self.training or self.dropout == 0 or used == 1:
            return None
        samples = latents.shape[0]
        device = latents.device
        drawn = torch.randint(1, used + 1, (samples,), device=device)
        dropped = torch.rand(samples, device=device) < self.dropout
        keep = torch.where(dropped, drawn, used)
        shape = (samples,) + (1,) * (latents.ndim - 2)
        return keep.reshape(shape).expand(latents.shape[:-1])
