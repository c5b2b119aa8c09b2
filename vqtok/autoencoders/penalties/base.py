"""Further losses of training, made from what one forward pass has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn


@dataclass(frozen=True)
class Context:
    """One forward pass in training.

    Attributes:
        inputs: [B, ...], what the encoder saw (corrupted); requires a gradient if any penalty
            has ``needs_input_gradient``.
        target: [B, ...], clean.
        latents: [B, ..., D], what the encoder gave.
        values: [B, ..., D'], what the bottleneck let through.
        output: what the decoder made of them.
        decode: the decoder, for other values.
        bottleneck: the module between.
        mask: bool [B, T] of sequences, or None.
        step: of training.
    """

    inputs: Tensor
    target: Tensor
    latents: Tensor
    values: Tensor
    output: Tensor
    decode: Callable[[Tensor], Tensor]
    bottleneck: nn.Module
    mask: Tensor | None
    step: int | None


class Penalty(nn.Module, ABC):
    """A loss term beside reconstruction, unweighted: its weight is ``loss_weights[name]``.

    Attributes:
        config: JSON-able; rebuilds the penalty.
        name: of the term, the type's.
        needs_input_gradient: whether it differentiates with respect to the inputs.
    """

    config: dict[str, Any]
    needs_input_gradient: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return str(self.config["type"])

    @abstractmethod
    def forward(self, context: Context) -> Tensor:
        """The term, a scalar: per sample, mean over the batch."""
