"""Sequences from a decoder: what is chosen at each position, and where to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from vqtok.nn.masks import zero_padding

# Makes values of outputs: [..., C] -> [..., C], or logits [..., V] -> int64 [...].
Choose = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Generated:
    """Sequences that a decoder made.

    Attributes:
        sequences: float [B, T, C] or int64 [B, T]; 0 where the mask is False.
        mask: bool [B, T], True up to each sequence's length, its end symbol included.
    """

    sequences: Tensor
    mask: Tensor

    @property
    def lengths(self) -> Tensor:
        """int64 [B]."""
        return self.mask.sum(1)


class StepDecoder(Protocol):
    """A decoder that goes one position at a time."""

    symbols: int | None
    max_length: int

    def begin(self, latents: Tensor) -> Any:
        """The state before the first position."""

    def step(self, previous: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        """The output [B, C] or [B, V] after the value before (None at first), and the state."""


@torch.no_grad()
def generate_stepwise(
    decoder: StepDecoder, latents: Tensor, lengths: Tensor | None, choose: Choose | None
) -> Generated:
    """Say one value after the other, each knowing those before (see ``SequenceDecoder``)."""
    choose = choose or greedy(decoder.symbols)
    limit = decoder.max_length if lengths is None else int(lengths.max())
    running = torch.ones(len(latents), dtype=torch.bool, device=latents.device)
    values, present = [], []
    previous, state = None, decoder.begin(latents)
    for place in range(limit):
        output, state = decoder.step(previous, state)
        previous = choose(output)
        if lengths is not None:
            running = lengths.to(running.device) > place
        values.append(previous)
        present.append(running)
        if lengths is None and decoder.symbols is not None:
            running = running & (previous != decoder.symbols - 1)
            if not bool(running.any()):
                break
    return as_generated(torch.stack(values, 1), torch.stack(present, 1))


def as_generated(sequences: Tensor, mask: Tensor) -> Generated:
    """Sequences with 0 in their padding."""
    return Generated(zero_padding(sequences, mask), mask)


def up_to_end(sequences: Tensor, symbols: int) -> Tensor:
    """The mask bool [B, T] of int64 [B, T]: True up to the first end symbol, or all along."""
    ends = (sequences == symbols - 1).long()
    return ends.cumsum(1) - ends == 0


def greedy(symbols: int | None) -> Choose:
    """The most probable value: the symbol with the largest logit, or the output itself."""
    if symbols is None:
        return lambda output: output
    return lambda output: output.argmax(-1)


def sampled(symbols: int | None, *, temperature: float = 1.0, sigma: float = 1.0) -> Choose:
    """A random value: a symbol by softmax(logits / temperature), or
    output + sigma * temperature * noise.

    Draws from torch's global generator, as all randomness of a model does.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")

    def choose(output: Tensor) -> Tensor:
        if symbols is None:
            return output + sigma * temperature * torch.randn_like(output)
        odds = F.softmax(output.float() / temperature, dim=-1)
        return torch.multinomial(odds.flatten(0, -2), 1).reshape(output.shape[:-1])

    return choose
