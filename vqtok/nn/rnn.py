"""Recurrent encoder and decoder: GRU (Cho et al., 2014) or LSTM (Hochreiter & Schmidhuber, 1997).

The networks run in the precision of their weights, under autocast too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from vqtok.nn.attention import CrossAttention
from vqtok.nn.generation import Choose, Generated, generate_stepwise
from vqtok.nn.masks import check_mask
from vqtok.nn.sequence import (
    LatentReader,
    SequenceDecoder,
    SequenceEmbedding,
    SequenceEncoder,
    position_codes,
)

CELLS: dict[str, Callable[..., nn.RNNBase]] = {"gru": nn.GRU, "lstm": nn.LSTM}


class RNNEncoder(SequenceEncoder):
    """A packed bidirectional RNN; L questions, asked from its last states, gather the latents.

    Args:
        dim: D, the dimension of a latent.
        num_latents: L.
        channels: C of real values; or
        symbols: V, of which the last ends a sequence.
        width: of the layers, both directions together.
        depth: layers.
        cell: "gru" or "lstm".
    """

    def __init__(
        self,
        dim: int,
        num_latents: int,
        *,
        channels: int | None = None,
        symbols: int | None = None,
        width: int = 128,
        depth: int = 1,
        cell: str = "gru",
    ) -> None:
        sizes = {"dim": dim, "num_latents": num_latents, "width": width, "depth": depth}
        super().__init__("rnn", **sizes, cell=cell, channels=channels, symbols=symbols)
        self.embedding = SequenceEmbedding(width, channels=channels, symbols=symbols)
        self.rnn = _build_rnn(cell, width, width // 2, depth, bidirectional=True)
        self.to_questions = nn.Linear(width, num_latents * width)
        self.attention = CrossAttention(width, heads=width // 8)
        self.to_latents = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim))

    def forward(self, sequences: Tensor, mask: Tensor | None = None) -> Tensor:
        """float [B, T, C] or int64 [B, T], mask bool [B, T] -> latents [B, L, D]."""
        check_mask(sequences, mask)
        embedded = self.embedding(sequences, mask)
        with torch.autocast(embedded.device.type, enabled=False):
            states, last = self._run(embedded.to(self.rnn.weight_ih_l0.dtype), mask)
        questions = rearrange(self.to_questions(last), "b (l w) -> b l w", l=self.num_latents)
        places = position_codes(states.shape[1], states.shape[2]).to(states)
        gathered = self.attention(questions, states + places, mask)
        latents: Tensor = self.to_latents(questions + gathered)
        return latents

    def _run(self, embedded: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """The states [B, T, width], and those after the last step each way [B, width]."""
        if mask is None:
            states, last = self.rnn(embedded)
        else:
            packed = pack_padded_sequence(
                embedded, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False
            )
            states, last = self.rnn(packed)
            states, _ = pad_packed_sequence(
                states, batch_first=True, total_length=embedded.shape[1]
            )
        if isinstance(last, tuple):  # LSTM: (hidden, cell)
            last = last[0]
        return states.contiguous(), torch.cat([last[-2], last[-1]], dim=1)


class RNNDecoder(SequenceDecoder):
    """Says one value after the other from its state, the value before and all L latents.

    Each step sees the latents twice: all of them together beside the value before, and those that
    its state asks for (attention; Luong et al., 2015, but to the latents alone).

    Args:
        dim: D, the dimension of a latent.
        num_latents: L.
        channels: C of real values; or
        symbols: V, of which the last ends a sequence.
        width: of the layers.
        depth: layers.
        cell: "gru" or "lstm".
        max_length: where generation stops at the latest.
    """

    reads_target = True

    def __init__(
        self,
        dim: int,
        num_latents: int,
        *,
        channels: int | None = None,
        symbols: int | None = None,
        width: int = 128,
        depth: int = 1,
        cell: str = "gru",
        max_length: int = 256,
    ) -> None:
        sizes = {"dim": dim, "num_latents": num_latents, "width": width, "depth": depth}
        sizes["max_length"] = max_length
        super().__init__("rnn", **sizes, cell=cell, channels=channels, symbols=symbols)
        self.embedding = SequenceEmbedding(width, channels=channels, symbols=symbols)
        self.start = nn.Parameter(torch.randn(width) * width**-0.5)
        self.summary = nn.Linear(num_latents * dim, width)
        self.rnn = _build_rnn(cell, width, width, depth, bidirectional=False)
        self.latent_reader = LatentReader(dim, num_latents, width)
        self.attention = CrossAttention(width, heads=width // 8)
        self.to_output = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, self.output_size),
        )

    def forward(self, latents: Tensor, target: Tensor) -> Tensor:
        """[B, L, D] and what to say -> [B, T, C] or logits [B, T, V]."""
        before = self.embedding(target[:, :-1])
        start = self.start.to(before.dtype).expand(len(latents), 1, -1)
        output, _ = self._advance(torch.cat([start, before], dim=1), self.begin(latents))
        return output

    def begin(self, latents: Tensor) -> Any:
        """The state before the first position."""
        source = self.latent_reader(latents)
        return 0, self.summary(latents.flatten(1)), source, None

    def step(self, previous: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        """The output [B, C] or [B, V] after the value before it."""
        if previous is None:
            x = self.start.expand(len(state[1]), 1, -1)
        else:
            x = self.embedding(previous[:, None])
        output, state = self._advance(x, state)
        return output[:, 0], state

    def _advance(self, before: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Outputs after the vectors [B, t, width] of the values before them, and the state."""
        place, summary, source, hidden = state
        places = position_codes(before.shape[1], before.shape[2], first=place).to(before)
        with torch.autocast(before.device.type, enabled=False):
            steps = (before + places + summary[:, None]).to(self.rnn.weight_ih_l0.dtype)
            states, hidden = self.rnn(steps, hidden)
        states = states.contiguous()
        mixed = states + self.attention(states, source)
        output: Tensor = self.to_output(mixed)
        return output, (place + before.shape[1], summary, source, hidden)

    def generate(
        self, latents: Tensor, lengths: Tensor | None = None, choose: Choose | None = None
    ) -> Generated:
        """Sequences from latents alone, see :class:`SequenceDecoder`."""
        return generate_stepwise(self, latents, lengths, choose)


def _build_rnn(
    cell: str, width: int, hidden: int, depth: int, *, bidirectional: bool
) -> nn.RNNBase:
    if cell not in CELLS:
        raise ValueError(f"unknown cell {cell!r}, expected one of {list(CELLS)}")
    if width % 8:
        raise ValueError(f"width must be a multiple of 8, not {width}")
    return CELLS[cell](width, hidden, depth, batch_first=True, bidirectional=bidirectional)
