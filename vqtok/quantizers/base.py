"""What every quantizer promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Quantized:
    """What a quantizer makes of a batch of latents.

    Attributes:
        quantized: [..., D], dtype of the latents; carries gradients back to them.
        codes: int64 [..., Q], each in [0, K_q), never negative.
        losses: unweighted scalar terms, float32 (``commitment``, ``codebook``, ...).
        metrics: detached scalar or [Q] tensors (``perplexity``, ``usage``); reading them is
            the caller's choice, so a training step never waits for the device.
    """

    quantized: Tensor
    codes: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Quantizer(nn.Module, ABC):
    """Maps latents [..., D] to codes [..., Q] and back.

    Inside, everything is computed in float32, under autocast too. ``eval()`` never changes
    state: codebooks, statistics and initialisation only move in training mode.
    """

    dim: int
    config: dict[str, Any]

    @property
    @abstractmethod
    def codebook_sizes(self) -> tuple[int, ...]:
        """The codebook size K of each of the Q codebooks."""

    @abstractmethod
    def forward(
        self, latents: Tensor, mask: Tensor | None = None, *, num_codebooks: int | None = None
    ) -> Quantized:
        """Quantize.

        Args:
            latents: float [..., D] (float32, bfloat16, float16 or float64), D = ``dim``.
            mask: bool [...], True where a position counts. Other positions get codes, but
                touch no statistics and no loss.
            num_codebooks: use only the first codebooks (1 <= num_codebooks <= Q; default all).

        Raises:
            ValueError: the shapes do not fit, or ``num_codebooks`` is out of range.
        """

    @abstractmethod
    def embed(self, codes: Tensor) -> Tensor:
        """Look codes up.

        Args:
            codes: integer [..., q] with 1 <= q <= Q: the codes of the first q codebooks.

        Returns:
            float32 [..., D].

        Raises:
            ValueError: q or a code is out of range.
        """

    def __call__(
        self, latents: Tensor, mask: Tensor | None = None, *, num_codebooks: int | None = None
    ) -> Quantized:
        result: Quantized = super().__call__(latents, mask, num_codebooks=num_codebooks)
        return result


def masked_mean_square(difference: Tensor, mask: Tensor | None) -> Tensor:
    """Mean square of [..., D] over the positions of a bool mask [...]; 0 if it has none."""
    if mask is not None:
        difference = difference[mask]
    return difference.square().sum() / max(1, difference.numel())


def check_latents(latents: Tensor, dim: int, mask: Tensor | None) -> None:
    """Raise ValueError unless latents are [..., dim] floats and the mask is bool [...]."""
    if latents.shape[-1] != dim:
        raise ValueError(f"latents have dim {latents.shape[-1]}, codebook has dim {dim}")
    if not latents.is_floating_point():
        raise ValueError(f"latents must be floating point, not {latents.dtype}")
    if mask is not None and (mask.dtype != torch.bool or mask.shape != latents.shape[:-1]):
        raise ValueError(
            f"mask must be bool {tuple(latents.shape[:-1])}, not {mask.dtype} {tuple(mask.shape)}"
        )


def check_num_codebooks(num_codebooks: int | None, available: int) -> int:
    """The number of codebooks to use; ValueError unless 1 <= num_codebooks <= available."""
    if num_codebooks is None:
        return available
    if not 1 <= num_codebooks <= available:
        raise ValueError(f"num_codebooks must be in 1..{available}, not {num_codebooks}")
    return num_codebooks


def check_codes(codes: Tensor, codebook_sizes: tuple[int, ...]) -> None:
    """Raise ValueError unless codes are integers [..., q <= Q], each below its codebook's size."""
    if codes.is_floating_point() or codes.dtype == torch.bool:
        raise ValueError(f"codes must be integers, not {codes.dtype}")
    if codes.ndim == 0 or not 1 <= codes.shape[-1] <= len(codebook_sizes):
        raise ValueError(
            f"codes have shape {tuple(codes.shape)}, expected [..., 1..{len(codebook_sizes)}]"
        )
    if codes.numel() == 0:
        return
    for index, size in enumerate(codebook_sizes[: codes.shape[-1]]):
        low, high = torch.aminmax(codes[..., index].long())
        if low < 0 or high >= size:
            raise ValueError(
                f"codebook {index} has codes 0..{size - 1}, got {int(low)}..{int(high)}"
            )


def without_type(config: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor arguments inside a component's config."""
    return {key: value for key, value in config.items() if key != "type"}
