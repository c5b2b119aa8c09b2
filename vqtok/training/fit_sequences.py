"""Fit an autoencoder to sequences, and say how well they come back, by length and beside PCA."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vqtok.autoencoders import Autoencoder
from vqtok.autoencoders.variants import variant
from vqtok.errors import UsageError
from vqtok.media.text import TEXT_END, TEXT_SYMBOLS, text_symbols
from vqtok.nn.masks import zero_padding
from vqtok.nn.sequence import SequenceDecoder
from vqtok.training.autoencoding import AutoencodingTask
from vqtok.training.baselines import PCA, code_size
from vqtok.training.by_length import LengthScore, by_length, length_table
from vqtok.training.config import TrainConfig
from vqtok.training.fit import check_contamination, default_config, pca_name
from vqtok.training.sequences import SequenceData
from vqtok.training.task import Inputs, Outcome
from vqtok.training.trainer import Trainer

Steps = npt.NDArray[Any]

# Windows that simple methods learn from, and windows that are scored.
_KNOWN = 2048
_SCORED = 256
_DEFAULT_LENGTH = 128


@dataclass(frozen=True)
class FittedSequences:
    """A trained model and how it did; prints as tables.

    Attributes:
        model: in evaluation mode.
        lengths: held-out sequences (or training ones, if none are held out) by their length.
        baselines: what simple methods reach on the same sequences: of real values the share of
            unexplained variance, with the model's own first; of symbols nats per step.
        log: lines of the training log.
    """

    model: Autoencoder
    lengths: tuple[LengthScore, ...]
    baselines: dict[str, float]
    log: tuple[dict[str, Any], ...]

    def __str__(self) -> str:
        unit = "nats/step" if self.lengths[0].exact is not None else "unexplained variance"
        lines = [f"{name:24} {value:.4f} {unit}" for name, value in self.baselines.items()]
        return "\n".join([*lines, length_table(self.lengths)])

    def facts(self) -> dict[str, Any]:
        """JSON-able: scores by length, those of simple methods, and the threshold."""
        return {
            "lengths": [asdict(score) for score in self.lengths],
            "baselines": self.baselines,
            "threshold": self.model.threshold,
        }


class SequenceTask(AutoencodingTask):
    """An :class:`AutoencodingTask` that logs how well sequences come back, by their length."""

    def validate(self, outcome: Outcome, batch: Any, folder: Path | None) -> dict[str, Any]:
        assert isinstance(outcome, Autoencoder)
        scores = by_length(outcome, batch)
        return super().validate(outcome, batch, folder) | {
            "by_length": [asdict(score) for score in scores]
        }


def fit_sequences(
    model: Autoencoder | str,
    data: Sequence[Steps | str | bytes],
    config: TrainConfig | None = None,
    *,
    length: int | None = None,
    held_out: float = 0.1,
    contamination: float | None = None,
    out: str | Path | None = None,
    name: str | None = None,
    device: str = "cpu",
    **settings: Any,
) -> FittedSequences:
    """Train on sequences of any length.

    Args:
        model: an autoencoder around sequence stacks (it is not changed), or the name of a variant
            (``seq2seq-rnn``, ``seq2seq-transformer``, ``seq2seq-conv``), built for the data with
            ``settings``.
        data: sequences: real values [T, C], or texts. An array [N, T, C] is N of them.
        config: how to train; by default ``default_config``.
        length: longer sequences are cut into windows of so many steps, at random places; of texts
            half of the windows are shorter. Default: that of the longest sequence, or 128 of a
            single one that is longer.
        held_out: share of the data that is not trained on: sequences drawn at random or, of a
            single one, its end.
        contamination: calibrate ``model.threshold`` so that this share of the held-out windows
            counts as anomalies.
        out: a folder for checkpoints and the model; a run in it is resumed.
        name: of the model (default: the variant's, or "autoencoder").
        device: where to train.
        settings: of a variant given by name.

    Raises:
        UsageError: the data are not sequences of one kind, or do not fit the model.
        ValueError: a setting is unknown or out of range.
    """
    check_contamination(contamination)
    sequences, text = as_sequences(data)
    config = config or default_config(clip=1.0)
    if length is None:
        longest = max(map(len, sequences))
        length = longest if len(sequences) > 1 else min(longest, _DEFAULT_LENGTH)
    if isinstance(model, str):
        name = name or model
        shape = (length + 1,) if text else (length, sequences[0].shape[1])
        model = variant(model, shape, **({"symbols": TEXT_SYMBOLS} if text else {}), **settings)
    elif settings:
        raise UsageError(f"settings {sorted(settings)} need the name of a variant")
    _check(model, sequences, text)
    train, rest = split_sequences(sequences, held_out, length, config.seed)
    facts: dict[str, Any] = {"length": length, "end": TEXT_END if text else None, "vary": text}
    batches = SequenceData(train, batch_size=config.batch_size, seed=config.seed, **facts)
    known = SequenceData(train, batch_size=_KNOWN, seed=config.seed, **facts)
    other = SequenceData(rest or train, batch_size=_SCORED, seed=config.seed, **facts)
    scaling = copy.deepcopy(model.scaling)
    if scaling is not None:
        scaling.fit(torch.from_numpy(np.concatenate(train)).unsqueeze(0))
    trainer = Trainer(
        {key: value for key, value in model.config.items() if key != "density"},
        batches,
        None if out is None else Path(out),
        config,
        name=name or "autoencoder",
        task=SequenceTask(known.batch(0), scaling),
        validation=other,
        device=device,
    )
    fitted = trainer.fit()
    assert isinstance(fitted, Autoencoder)
    scored = other.batch(0)
    if contamination is not None:
        scores = fitted.score_samples(scored.values, scored.mask).double()
        fitted.threshold = float(scores.quantile(contamination))
        if out is not None:
            fitted.save_pretrained(out)
    simple = _entropies(known.batch(0), scored) if text else _errors(fitted, known.batch(0), scored)
    return FittedSequences(fitted, by_length(fitted, scored), simple, tuple(trainer.log))


def windows_for(model: Autoencoder, data: Sequence[Steps | str | bytes]) -> Inputs:
    """Windows of sequences, as long as a model was built for, to look at how it does.

    Raises:
        UsageError: the data are not sequences of one kind, or do not fit the model.
    """
    sequences, text = as_sequences(data)
    _check(model, sequences, text)
    assert isinstance(model.decoder, SequenceDecoder)
    length = model.decoder.max_length - text
    end = TEXT_END if text else None
    facts: dict[str, Any] = {"length": max(1, length), "end": end, "vary": text}
    return SequenceData(sequences, batch_size=_SCORED, **facts).batch(0)


def as_sequences(data: Sequence[Steps | str | bytes]) -> tuple[list[Steps], bool]:
    """Sequences as arrays float32 [T, C] or, of texts, uint8 [T]; and whether they are texts.

    Raises:
        UsageError: there are none, they are empty or of several kinds, or hold NaN or Inf.
    """
    items = [np.asarray(item) if isinstance(item, Tensor) else item for item in data]
    if not items:
        raise UsageError("there are no sequences")
    if all(isinstance(item, (str, bytes)) for item in items):
        texts = [text_symbols(item)[:-1].astype(np.uint8) for item in items]  # type: ignore[arg-type]
        if not all(map(len, texts)):
            raise UsageError("a text is empty: leave it out")
        return list(texts), True
    arrays = [np.asarray(item) for item in items]
    kinds = {(array.ndim, array.shape[-1:], array.dtype.kind in "fiub") for array in arrays}
    if len(kinds) > 1 or arrays[0].ndim != 2 or arrays[0].dtype.kind not in "fiub":
        shapes = sorted({f"{array.dtype} {list(array.shape)}" for array in arrays})[:3]
        raise UsageError(
            f"sequences must be texts, or numbers [T, C] with the same C, not {', '.join(shapes)}"
        )
    values = [np.ascontiguousarray(array, np.float32) for array in arrays]
    for place, value in enumerate(values):
        if not value.size or not np.isfinite(value).all():
            raise UsageError(
                f"sequence {place} is empty or holds NaN or Inf: fill or drop it first"
            )
    return list(values), False


def split_sequences(
    sequences: list[Steps], held_out: float, length: int, seed: int
) -> tuple[list[Steps], list[Steps] | None]:
    """Training and held-out sequences: some of 20 or more at random, of a long one its end."""
    if not 0 <= held_out < 1:
        raise UsageError(f"held_out must be in [0, 1), not {held_out}")
    if len(sequences) == 1:
        cut = round(len(sequences[0]) * (1 - held_out))
        if min(cut, len(sequences[0]) - cut) < length:
            return sequences, None
        return [sequences[0][:cut]], [sequences[0][cut:]]
    count = round(held_out * len(sequences))
    if count == 0 or len(sequences) < 20:
        return sequences, None
    order = np.random.default_rng(seed).permutation(len(sequences))
    return [sequences[i] for i in order[count:]], [sequences[i] for i in order[:count]]


def _check(model: Autoencoder, sequences: list[Steps], text: bool) -> None:
    decoder = model.decoder
    if not isinstance(decoder, SequenceDecoder):
        raise UsageError(f"{model.name} is not made of sequence stacks")
    if text and decoder.symbols != TEXT_SYMBOLS:
        own = "real values" if decoder.symbols is None else f"{decoder.symbols} symbols"
        raise UsageError(f"texts need symbols={TEXT_SYMBOLS}, the model is of {own}")
    if not text and decoder.channels != sequences[0].shape[1]:
        own = "symbols" if decoder.channels is None else f"{decoder.channels} channels"
        raise UsageError(
            f"the data are numbers of {sequences[0].shape[1]} channels, the model is of {own}"
        )


def _errors(model: Autoencoder, known: Inputs, scored: Inputs) -> dict[str, float]:
    """Unexplained variance of the model, of PCA at equal code size, and of the mean."""
    fit, target = (_rows(model, inputs) for inputs in (known, scored))
    width = max(fit.shape[1], target.shape[1])
    fit, target = (
        torch.nn.functional.pad(each, (0, 0, 0, width - each.shape[1])) for each in (fit, target)
    )
    mask = torch.ones(scored.values.shape[:2], dtype=torch.bool)
    mask = torch.nn.functional.pad(
        mask if scored.mask is None else scored.mask, (0, width - mask.shape[1])
    )
    made = model.reconstruct(scored.values, scored.mask)
    own = torch.zeros_like(target)
    own[:, : made.shape[1]] = model.scaled(made).cpu()
    size = code_size(model, known.values[:1], None if known.mask is None else known.mask[:1])
    variance = (target - target[mask].mean(0))[mask].square().sum()

    def unexplained(output: Tensor) -> float:
        return float((output - target)[mask].square().sum() / variance)

    simple = PCA.fit(fit, size)
    return {
        model.name: unexplained(own),
        pca_name(len(simple.axes)): unexplained(simple.reconstruct(target)),
        "mean": unexplained(PCA.fit(fit, 0).reconstruct(target)),
    }


def _rows(model: Autoencoder, inputs: Inputs) -> Tensor:
    return zero_padding(model.scaled(inputs.values.to(model.device)).cpu(), inputs.mask)


def _entropies(known: Inputs, scored: Inputs) -> dict[str, float]:
    """Nats per symbol if each is as likely as in the training data, by itself or after the last."""
    start = torch.zeros(TEXT_SYMBOLS, dtype=torch.double)
    pairs = torch.zeros(TEXT_SYMBOLS, TEXT_SYMBOLS, dtype=torch.double)
    ones = torch.ones((), dtype=torch.double)
    mask = torch.ones_like(known.values, dtype=torch.bool) if known.mask is None else known.mask
    start.index_put_((known.values[mask],), ones, accumulate=True)
    inside = mask[:, 1:]
    pairs.index_put_(
        (known.values[:, :-1][inside], known.values[:, 1:][inside]), ones, accumulate=True
    )
    alone = ((start + 1) / (start + 1).sum()).log()
    # What was seen after a symbol, beside the odds of any symbol as if seen as often as ten.
    after = (pairs + 10 * alone.exp()) / (pairs.sum(1, keepdim=True) + 10)
    mask = torch.ones_like(scored.values, dtype=torch.bool) if scored.mask is None else scored.mask
    symbols, inside = scored.values, mask[:, 1:]
    follow = after.log()[symbols[:, :-1], symbols[:, 1:]][inside].sum()
    return {
        "symbols alone": float(-alone[symbols[mask]].mean()),
        "after the one before": float(-(follow + alone[symbols[:, 0]].sum()) / mask.sum()),
    }
