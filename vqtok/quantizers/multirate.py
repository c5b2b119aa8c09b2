"""Residual quantization at several rates along time (SNAC: Siuzdak et al., 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtok.quantizers.base import (
    Quantized,
    Quantizer,
    check_codes,
    check_latents,
    check_num_codebooks,
    combine,
    join,
    masked_mean_square,
    zero_masked,
)
from vqtok.quantizers.gradients import straight_through
from vqtok.quantizers.usage import usage_of_columns


class MultiRateQuantizer(Quantizer):
    """A latent is a frame of several steps; the first codebook codes means over many of them, each
    next one what is left over, over fewer (arXiv:2410.14411).

    The codes of a frame are in its Q slots level by level, and within a level by time: with four
    steps and strides 4, 2, 1 those of steps 0-3; 0-1, 2-3; 0, 1, 2, 3. The first codebooks are a
    coarser description. A level that is not whole (``num_codebooks`` ends within it) adds nothing
    to the steps that it lacks.

    Args:
        layers: quantizers of the levels, each of one codebook and of the dimension of a step.
        strides: steps that a code of each level stands for, falling; each divides the frame.
        frame: steps of a latent; D is as many times the layers' dimension.

    Losses: the means over levels of the layers' losses; if no layer learns from the output,
    ``commitment`` is the mean squared distance of latents to the (constant) sum of the levels.
    Metrics: ``perplexity`` and ``usage`` of each slot, ``dead`` of its level, [Q].
    """

    def __init__(self, layers: Sequence[Quantizer], *, strides: Sequence[int], frame: int) -> None:
        super().__init__()
        if not layers or len(layers) != len(strides):
            raise ValueError(f"there are {len(layers)} layers and {len(strides)} strides")
        if len({layer.dim for layer in layers}) != 1:
            raise ValueError(f"layers differ in dim: {[layer.dim for layer in layers]}")
        if any(len(layer.codebook_sizes) != 1 for layer in layers):
            raise ValueError("each layer of a MultiRateQuantizer must have one codebook")
        if any(stride < 1 or frame % stride for stride in strides):
            raise ValueError(f"strides {list(strides)} must divide the frame of {frame} steps")
        self.config: dict[str, Any] = {
            "type": "multirate",
            "layers": [layer.config for layer in layers],
            "strides": list(strides),
            "frame": frame,
        }
        self.frame = frame
        self.strides = tuple(strides)
        self.dim = frame * layers[0].dim
        self.layers = nn.ModuleList(layers)
        self.chained = any(layer.learns_from_output for layer in layers)

    @property
    def learns_from_output(self) -> bool:
        return self.chained

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return tuple(
            layer.codebook_sizes[0]
            for layer, stride in zip(self._quantizers(), self.strides, strict=True)
            for _ in range(self.frame // stride)
        )

    def forward(
        self, latents: Tensor, mask: Tensor | None = None, *, num_codebooks: int | None = None
    ) -> Quantized:
        check_latents(latents, self.dim, mask)
        used = check_num_codebooks(num_codebooks, len(self.codebook_sizes))
        with torch.autocast(latents.device.type, enabled=False):
            target = zero_masked(latents.float(), mask)
            rest = target.unflatten(-1, (self.frame, -1))  # type: ignore[no-untyped-call]
            total = torch.zeros_like(rest)
            results: list[Quantized] = []
            for layer, stride, share in self._levels(used):
                means = _means(rest - total, stride)[..., :share, :]
                steps = None if mask is None else mask[..., None].expand(means.shape[:-1])
                result = layer(means, steps)
                part = result.quantized if self.chained else result.quantized.detach()
                total = total + self._spread(part, stride)
                codes = result.codes[..., 0]
                valid = None if mask is None else mask.flatten()
                rows = codes.flatten(0, -2)
                usage = self._usage(layer, rows, valid, result.metrics["dead"])
                results.append(Quantized(part, codes, result.losses, usage))
            summed = total.flatten(-2)
            quantized = summed if self.chained else straight_through(target, summed)
        combined = combine(results, [1 / len(results)] * len(results))
        if not self.chained:
            combined.losses["commitment"] = masked_mean_square(target, summed, mask)
        return Quantized(
            quantized.to(latents.dtype), combined.codes, combined.losses, combined.metrics
        )

    def embed(self, codes: Tensor) -> Tensor:
        check_codes(codes, self.codebook_sizes)
        total: Tensor | None = None
        start = 0
        for layer, stride, share in self._levels(codes.shape[-1]):
            part = layer.embed(codes[..., start : start + share, None])
            spread = self._spread(part, stride)
            total = spread if total is None else total + spread
            start += share
        assert total is not None
        return total.flatten(-2)

    def metrics(self, codes: Tensor, valid: Tensor | None) -> dict[str, Tensor]:
        found, start = [], 0
        for layer, _, share in self._levels(codes.shape[-1]):
            part = codes[:, start : start + share]
            spread = None if valid is None else valid[:, None].expand(part.shape).flatten()
            dead = layer.metrics(part.reshape(-1, 1), spread)["dead"]
            found.append(self._usage(layer, part, valid, dead))
            start += share
        return join(found)

    def initialize(self, latents: Tensor, mask: Tensor | None = None) -> None:
        """Only the first level is started: the others do it in the first forward pass."""
        steps = latents.unflatten(-1, (self.frame, -1))  # type: ignore[no-untyped-call]
        means = _means(steps, self.strides[0])
        spread = None if mask is None else mask[..., None].expand(means.shape[:-1])
        self._quantizers()[0].initialize(means, spread)

    def _levels(self, used: int) -> list[tuple[Quantizer, int, int]]:
        """(layer, stride, number of its codes) of the levels that the first ``used`` slots hold."""
        levels: list[tuple[Quantizer, int, int]] = []
        for layer, stride in zip(self._quantizers(), self.strides, strict=True):
            share = min(used, self.frame // stride)
            if share:
                levels.append((layer, stride, share))
            used -= share
        return levels

    def _spread(self, part: Tensor, stride: int) -> Tensor:
        """What the codes [..., share, d] of a level add to the steps [..., frame, d]."""
        steps = part.repeat_interleave(stride, dim=-2)
        return F.pad(steps, (0, 0, 0, self.frame - steps.shape[-2]))

    def _usage(
        self, layer: Quantizer, codes: Tensor, valid: Tensor | None, dead: Tensor
    ) -> dict[str, Tensor]:
        """Of each of a level's slots, the codes [N, share], beside the layer's ``dead`` [1]."""
        size = layer.codebook_sizes[0]
        found = usage_of_columns(codes, size, valid, all_ranks=self.training)
        return {**found, "dead": dead.expand(codes.shape[-1])}

    def _quantizers(self) -> list[Quantizer]:
        return [layer for layer in self.layers if isinstance(layer, Quantizer)]


def _means(steps: Tensor, stride: int) -> Tensor:
    """[..., frame, d] to [..., frame / stride, d]."""
    if stride == 1:
        return steps
    grouped: Tensor = steps.unflatten(-2, (-1, stride))  # type: ignore[no-untyped-call]
    return grouped.mean(-2)
