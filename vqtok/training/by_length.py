"""How well sequences come back from their latents alone, by their length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vqtok.autoencoders import Autoencoder
from vqtok.nn.masks import mask_of
from vqtok.nn.sequence import SequenceDecoder
from vqtok.training.task import Inputs


@dataclass(frozen=True)
class LengthScore:
    """Of the sequences whose length is in a range.

    Attributes:
        shortest, longest: the range, in steps; the end symbol counts.
        count: how many there are.
        nats_per_step: minus the mean log-likelihood of a step, each given those before it if the
            decoder works so.
        wrong: share of the steps whose symbol is another, when decoded from latents alone; of real
            values the unexplained variance: squared error relative to that of all values' mean.
        exact: share of the sequences that come back whole and end where they should (symbols).
    """

    shortest: int
    longest: int
    count: int
    nats_per_step: float
    wrong: float
    exact: float | None


def by_length(model: Autoencoder, inputs: Inputs, ranges: int = 4) -> tuple[LengthScore, ...]:
    """Scores in ranges of about as many sequences each, short ones first.

    Args:
        model: with a sequence decoder.
        inputs: sequences.
        ranges: at most how many.
    """
    assert isinstance(model.decoder, SequenceDecoder)
    values = inputs.values.to(model.device)
    mask = inputs.mask
    if mask is None:
        mask = torch.ones(values.shape[:2], dtype=torch.bool)
    mask = mask.to(model.device)
    nats = -model.score_samples(values, mask, per_feature=True).flatten(1).sum(1)
    if model.decoder.symbols is None:
        wrong, steps, exact = _errors(model, values, mask)
    else:
        wrong, steps, exact = _wrong_symbols(model, values, mask)
    lengths = mask.sum(1)
    scores = []
    for low, high in split_lengths(lengths.tolist(), ranges):
        inside = (lengths >= low) & (lengths <= high)
        scores.append(
            LengthScore(
                low,
                high,
                int(inside.sum()),
                float(nats[inside].sum() / lengths[inside].sum()),
                float(wrong[inside].sum() / steps[inside].sum().clamp_min(1e-12)),
                None if exact is None else float(exact[inside].float().mean()),
            )
        )
    return tuple(scores)


def split_lengths(lengths: Sequence[int], ranges: int) -> list[tuple[int, int]]:
    """Ranges of lengths, both ends included, that hold about as many sequences each."""
    ordered = sorted(lengths)
    edges = sorted({ordered[len(ordered) * number // ranges] for number in range(1, ranges)})
    lows = [ordered[0], *(edge for edge in edges if edge > ordered[0])]
    return list(zip(lows, [*(low - 1 for low in lows[1:]), ordered[-1]], strict=True))


def _wrong_symbols(
    model: Autoencoder, values: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Steps [B] that come back wrong, steps [B], and whether all came back and no more."""
    decoder = model.decoder
    assert isinstance(decoder, SequenceDecoder)
    made = model.inverse_transform(model.transform(values, mask))
    width = max(made.shape[1], values.shape[1])
    made, known = (_widened(each, width) for each in (made, values))
    mask = mask_of(mask.sum(1), width)
    wrong = ((made != known) & mask).sum(1)
    # Past its end symbol a generated sequence is 0; one that says more differs at the end.
    return wrong, mask.sum(1), (wrong == 0) & _ends(known, mask, made, decoder.symbols or 0)


def _ends(known: Tensor, mask: Tensor, made: Tensor, symbols: int) -> Tensor:
    """Whether sequences [B] that are right so far say no more than they should."""
    last = known.gather(1, mask.sum(1, keepdim=True) - 1)[:, 0]
    return (last == symbols - 1) | (torch.where(mask, 0, made) == 0).all(1)


def _errors(
    model: Autoencoder, values: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Squared errors [B] of the scaled values, and those that their mean would have."""
    made = model.scaled(model.reconstruct(values, mask))
    known = model.scaled(values)
    around = known - known[mask].mean(0)
    error, variance = (
        each.square().sum(-1).masked_fill(~mask, 0.0).sum(1) for each in (made - known, around)
    )
    return error, variance, None


def _widened(sequences: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(sequences, (0, width - sequences.shape[1]))


def length_table(scores: Sequence[LengthScore]) -> str:
    """The scores as lines of text, with a header."""
    symbols = any(score.exact is not None for score in scores)
    lines = [f"{'steps':>11}  {'sequences':>9}  {'nats/step':>9}  "]
    lines[0] += f"{'wrong':>7}  {'exact':>6}" if symbols else f"{'unexplained':>11}"
    for score in scores:
        span = f"{score.shortest}-{score.longest}"
        line = f"{span:>11}  {score.count:9d}  {score.nats_per_step:9.4f}  "
        if score.exact is None:
            lines.append(line + f"{score.wrong:11.4f}")
        else:
            lines.append(line + f"{score.wrong:7.2%}  {score.exact:6.1%}")
    return "\n".join(lines)
