"""Multi-scale residual quantization (VAR: Tian et al., 2024, arXiv:2404.02905)."""

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
    masked_mean_square,
    zero_masked,
)
from vqtok.quantizers.gradients import straight_through
from vqtok.quantizers.usage import usage_of_codes


class MultiScaleQuantizer(Quantizer):
    """A pyramid: a small map codes the latents coarsely, each larger one what is left over.

    At each scale the rest is averaged down, quantized, blown up (bicubic) and passed through a
    light 3 x 3 convolution before it is taken off.

    Latents are [..., S, S, D], S the last scale. The codes are those of all scales in one
    sequence, coarse to fine, each scale row by row: **int64 [..., L, 1], L the sum of the squared
    scales** (the positions of the latents are not those of the codes, so a pyramid has one
    codebook and ``num_codebooks`` offers no choice). The rate is chosen by cutting the sequence:
    ``embed`` takes the codes of the first scales, for any number of them.

    Args:
        layer: quantizes the positions of every scale; of one codebook.
        scales: the sides of the maps, rising, e.g. (1, 2, 3, 4, 5, 6, 8, 10, 13, 16).
        refinements: number of convolutions, at most one a scale; neighbouring scales share one.
        refinement_ratio: share of the convolution in what a scale adds; 0 leaves it out.
        shared: for each scale, the number of its convolution. Default: evenly.

    A cell of a scale counts if any position under it does; it averages those that count.

    Losses: ``commitment`` and ``refinement``, means over scales of the squared distance between
    latents and the sum so far: the first moves the latents, the second the convolutions; the
    means over scales of the layer's other losses.
    Metrics: of the codes of all scales together, [1].
    """

    def __init__(
        self,
        layer: Quantizer,
        scales: Sequence[int],
        *,
        refinements: int = 4,
        refinement_ratio: float = 0.5,
        shared: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        scales = [int(side) for side in scales]
        if not scales or scales[0] < 1 or scales != sorted(set(scales)):
            raise ValueError(f"scales must be positive and rise, not {scales}")
        if len(layer.codebook_sizes) != 1:
            raise ValueError("the layer of a MultiScaleQuantizer must have one codebook")
        if layer.learns_from_output:
            raise ValueError(
                f"a {type(layer).__name__} learns from the gradient of its output, which a "
                "MultiScaleQuantizer does not hand on (a ProjectedQuantizer can be around it)"
            )
        if refinements < 1 or not 0 <= refinement_ratio <= 1:
            raise ValueError(
                f"refinements must be positive and refinement_ratio in [0, 1], "
                f"not {refinements} and {refinement_ratio}"
            )
        refinements = min(refinements, len(scales))
        even = [index * refinements // len(scales) for index in range(len(scales))]
        if shared is not None and (
            len(shared) != len(scales) or not set(shared) <= set(range(refinements))
        ):
            raise ValueError(
                f"shared must name one of {refinements} convolutions for each of {len(scales)} "
                f"scales, not {list(shared)}"
            )
        self.config: dict[str, Any] = {
            "type": "multiscale",
            "layer": layer.config,
            "scales": scales,
            "refinements": refinements,
            "refinement_ratio": refinement_ratio,
        }
        self.shared = even if shared is None else [int(index) for index in shared]
        if self.shared != even:  # left out otherwise, so that older configs keep their fingerprint
            self.config["shared"] = self.shared
        self.dim = layer.dim
        self.layer: Quantizer = layer
        self.scales = tuple(scales)
        self.refinement_ratio = refinement_ratio
        self.refinements = nn.ModuleList(_identity(self.dim) for _ in range(refinements))

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return self.layer.codebook_sizes

    def forward(
        self, latents: Tensor, mask: Tensor | None = None, *, num_codebooks: int | None = None
    ) -> Quantized:
        check_latents(latents, self.dim, mask)
        check_num_codebooks(num_codebooks, 1)
        side = self.scales[-1]
        if latents.ndim < 3 or latents.shape[-3:-1] != (side, side):
            raise ValueError(
                f"latents must be [..., {side}, {side}, {self.dim}], not {list(latents.shape)}"
            )
        with torch.autocast(latents.device.type, enabled=False):
            lead = latents.shape[:-3]
            maps = zero_masked(latents.float(), mask).reshape(-1, side, side, self.dim)
            grid = None if mask is None else mask.reshape(-1, side, side)
            result = self._quantize_maps(maps, grid)
        return Quantized(
            result.quantized.reshape(latents.shape).to(latents.dtype),
            result.codes.reshape(*lead, result.codes.shape[1], 1),
            result.losses,
            result.metrics,
        )

    def _quantize_maps(self, maps: Tensor, mask: Tensor | None) -> Quantized:
        """Latents [B, S, S, D] to codes [B, L]."""
        self.layer.initialize(maps.detach(), mask)
        total = torch.zeros_like(maps)
        results: list[Quantized] = []
        used: list[Tensor] = []
        for index, side in enumerate(self.scales):
            cells, cell_mask = _average(maps - total.detach(), mask, side)
            result = self.layer(cells, cell_mask)
            total = total + self._blow_up(result.quantized.detach(), index)
            losses = {
                **result.losses,
                "commitment": masked_mean_square(maps, total.detach(), mask),
                "refinement": masked_mean_square(maps.detach(), total, mask),
            }
            codes = result.codes.reshape(len(maps), side * side)
            results.append(Quantized(result.quantized, codes, losses, result.metrics))
            if cell_mask is not None:
                used.append(cell_mask.reshape(len(maps), side * side))
        combined = combine(results, [1 / len(results)] * len(results))
        valid = torch.cat(used, dim=1).flatten() if used else None
        flat = combined.codes.reshape(-1, 1)
        if self.training:  # the layer counted each scale, the last one last
            (size,) = self.codebook_sizes
            metrics = usage_of_codes(flat[:, 0], size, valid, all_ranks=True)
            metrics["dead"] = results[-1].metrics["dead"]
        else:
            metrics = self.metrics(flat, valid)
        quantized = straight_through(maps, total)
        return Quantized(quantized, combined.codes, combined.losses, metrics)

    def metrics(self, codes: Tensor, valid: Tensor | None) -> dict[str, Tensor]:
        return self.layer.metrics(codes, valid)

    def embed(self, codes: Tensor) -> Tensor:
        """Look codes up.

        Args:
            codes: integer [..., L', 1], the codes of the first scales, L' the sum of their
                squared sides.

        Returns:
            float32 [..., S, S, D].

        Raises:
            ValueError: L' is not a number of whole scales, or a code is out of range.
        """
        check_codes(codes, self.codebook_sizes)
        ends = [sum(side**2 for side in self.scales[: n + 1]) for n in range(len(self.scales))]
        if codes.ndim < 2 or codes.shape[-2] not in ends:
            raise ValueError(
                f"codes of whole scales are [..., L, 1] with L one of {ends}, "
                f"not {list(codes.shape)}"
            )
        lead, side = codes.shape[:-2], self.scales[-1]
        flat = codes.reshape(-1, codes.shape[-2], 1)
        total = torch.zeros(len(flat), side, side, self.dim, device=codes.device)
        start = 0
        for index, scale in enumerate(self.scales[: ends.index(codes.shape[-2]) + 1]):
            cells = flat[:, start : start + scale**2].reshape(-1, scale, scale, 1)
            total = total + self._blow_up(self.layer.embed(cells), index)
            start += scale**2
        return total.reshape(*lead, side, side, self.dim)

    def _blow_up(self, cells: Tensor, index: int) -> Tensor:
        """What the quantized cells [B, s, s, D] of a scale add to the map [B, S, S, D]."""
        planes = _resize(cells.permute(0, 3, 1, 2), self.scales[-1])
        refine = self.refinements[self.shared[index]]
        ratio = self.refinement_ratio
        added: Tensor = (1 - ratio) * planes + ratio * refine(planes)
        return added.permute(0, 2, 3, 1)


def _average(maps: Tensor, mask: Tensor | None, side: int) -> tuple[Tensor, Tensor | None]:
    """Maps [B, S, S, D] averaged down to [B, side, side, D] over the positions that count."""
    if maps.shape[1] == side:
        return maps, mask
    planes = maps.permute(0, 3, 1, 2)
    if mask is None:
        return _resize(planes, side).permute(0, 2, 3, 1), None
    weight = mask[:, None].float()
    share = _resize(weight, side)
    mean = _resize(planes * weight, side) / share.clamp_min(1e-6)
    return mean.permute(0, 2, 3, 1), share[:, 0] > 0


def _resize(planes: Tensor, side: int) -> Tensor:
    """Planes [B, D, s, s] as [B, D, side, side]: averaged if that is fewer, bicubic if more."""
    if planes.shape[-1] == side:
        return planes
    if len(planes) == 0:
        return planes.new_zeros(0, planes.shape[1], side, side)
    if planes.shape[-1] > side:
        return F.adaptive_avg_pool2d(planes, side)
    return F.interpolate(planes, size=(side, side), mode="bicubic")


def _identity(dim: int) -> nn.Conv2d:
    conv = nn.Conv2d(dim, dim, 3, padding=1)
    nn.init.dirac_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv
