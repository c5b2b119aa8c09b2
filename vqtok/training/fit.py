"""Fit an autoencoder to data in memory, and say how good it is beside what is simple."""

from __future__ import annotations

import copy
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqtok.autoencoders import Autoencoder
from vqtok.autoencoders.variants import variant
from vqtok.errors import UsageError
from vqtok.training.arrays import Arrays, as_samples
from vqtok.training.autoencoding import AutoencodingTask
from vqtok.training.baselines import PCA, code_size
from vqtok.training.config import TrainConfig
from vqtok.training.ranks import this_rank
from vqtok.training.task import Inputs
from vqtok.training.trainer import Trainer

_MEMORISING = 1.5
"""A held-out error this many times the training error, beyond what PCA has, is memorising."""
_DENSITY_SAMPLES = 8192


class MemorisingWarning(UserWarning):
    """The model does much better on what it was trained on than on other data."""


@dataclass(frozen=True)
class Score:
    """Errors of one method, as fractions of the training data's variance (scaled): 1 is what the
    mean of the training data leaves, 0 is perfect.

    Attributes:
        name: of the method.
        code_size: numbers per sample.
        train, held_out: the fractions; ``held_out`` is None without held-out data.
    """

    name: str
    code_size: int
    train: float
    held_out: float | None


@dataclass(frozen=True)
class Fitted:
    """A trained model and how it did; prints as a table.

    Attributes:
        model: in evaluation mode.
        scores: the model's, then PCA's at equal code size and the mean's.
        memorises: whether held-out data fare much worse, beyond what PCA shows.
        log: lines of the training log.
    """

    model: Autoencoder
    scores: tuple[Score, ...]
    memorises: bool
    log: tuple[dict[str, Any], ...]

    def __str__(self) -> str:
        lines = [f"{'unexplained variance':24} {'code':>5}  {'train':>8}  {'held out':>8}"]
        for score in self.scores:
            held_out = "-" if score.held_out is None else f"{score.held_out:.4f}"
            lines.append(f"{score.name:24} {score.code_size:5d}  {score.train:8.4f}  {held_out:>8}")
        return "\n".join(lines)

    def facts(self) -> dict[str, Any]:
        """JSON-able: scores, whether it memorises, and the threshold."""
        return {
            "scores": [asdict(score) for score in self.scores],
            "memorises": self.memorises,
            "threshold": self.model.threshold,
        }


def fit(
    model: Autoencoder | str,
    data: Any,
    config: TrainConfig | None = None,
    *,
    held_out: float = 0.1,
    contamination: float | None = None,
    out: str | Path | None = None,
    name: str | None = None,
    device: str = "cpu",
    **settings: Any,
) -> Fitted:
    """Train on an array and compare with PCA and the mean.

    Args:
        model: an autoencoder (it is not changed: training starts from a fresh one of its config),
            or the name of a variant, built for the data's shape with ``settings``.
        data: numpy array or tensor [N, ...].
        config: how to train; by default :func:`default_config`.
        held_out: share of the data that is not trained on, drawn with the config's seed; none of
            fewer than 20 samples.
        contamination: calibrate ``model.threshold`` so that this share of the held-out data (of
            the training data, if none are held out) counts as anomalies.
        out: a folder for checkpoints and the model; a run in it is resumed.
        name: of the model (default: the variant's, or "autoencoder").
        device: where to train.
        settings: of a variant given by name (see ``vqtok.autoencoders.variants.Options``).

    Raises:
        UsageError: the data are not such, or do not fit the model.
        ValueError: a setting is unknown or out of range.
    """
    check_contamination(contamination)
    samples = as_samples(data)
    if len(samples) < 2:
        raise UsageError("there is nothing to learn from 1 sample: at least 2 are needed")
    if isinstance(model, str):
        name = name or model
        model = variant(model, samples.shape[1:], **settings)
    elif settings:
        raise UsageError(f"settings {sorted(settings)} need the name of a variant")
    config = config or default_config()
    train, rest = split(samples, held_out, config.seed)
    trainer = array_trainer(
        model, train, config, rest, out=out, name=name or "autoencoder", device=device
    )
    fitted = trainer.fit()
    assert isinstance(fitted, Autoencoder)
    if contamination is not None:
        calibrate(fitted, train if rest is None else rest, contamination)
        if out is not None and this_rank() == 0:
            fitted.save_pretrained(out)
    result = compare(fitted, train, rest, tuple(trainer.log))
    if result.memorises:
        warnings.warn(
            f"{fitted.name} memorises: unexplained variance {result.scores[0].held_out:.3g} on "
            f"held-out data, {result.scores[0].train:.3g} on training data. Train fewer steps, "
            f"take a smaller model, or more noise",
            MemorisingWarning,
            stacklevel=2,
        )
    return result


def default_config(**changes: Any) -> TrainConfig:
    """How arrays are trained: 2,000 steps of 128 samples in float32."""
    settings: dict[str, Any] = {
        "steps": 2000,
        "batch_size": 128,
        "learning_rate": 2e-3,
        "weight_decay": 0.0,
        "clip": 1000.0,
        "average_decay": 0.99,
        "autocast": False,
    }
    settings |= changes
    settings.setdefault("warmup", min(100, settings["steps"] // 10))
    settings.setdefault("save_every", settings["steps"])
    return TrainConfig(**settings)


def array_trainer(
    model: Autoencoder,
    train: Tensor,
    config: TrainConfig,
    held_out: Tensor | None = None,
    *,
    out: str | Path | None = None,
    name: str = "autoencoder",
    device: str = "cpu",
) -> Trainer:
    """The trainer of a model on an array; its scaling is learned from it."""
    scaling = copy.deepcopy(model.scaling)
    if scaling is not None:
        scaling.fit(train)
    try:
        model.likelihood.check(train if scaling is None else scaling(train))
    except ValueError as error:
        raise UsageError(str(error)) from error
    data = Arrays(train, batch_size=config.batch_size, seed=config.seed)
    validation = None
    if held_out is not None:
        validation = Arrays(held_out, batch_size=1024, seed=config.seed)
    return Trainer(
        {key: value for key, value in model.config.items() if key != "density"},
        data,
        None if out is None else Path(out),
        config,
        name=name,
        task=AutoencodingTask(Inputs(train[:_DENSITY_SAMPLES]), scaling),
        validation=validation,
        device=device,
    )


def split(samples: Tensor, held_out: float, seed: int) -> tuple[Tensor, Tensor | None]:
    """Training and held-out samples, drawn at random; nothing is held out of fewer than 20."""
    if not 0 <= held_out < 1:
        raise UsageError(f"held_out must be in [0, 1), not {held_out}")
    count = round(held_out * len(samples))
    if count == 0 or len(samples) < 20:
        return samples, None
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    return samples[order[count:]], samples[order[:count]]


def compare(
    model: Autoencoder,
    train: Tensor,
    held_out: Tensor | None,
    log: tuple[dict[str, Any], ...] = (),
) -> Fitted:
    """The model beside PCA at equal code size and beside the mean."""
    known = model.scaled(train.to(model.device)).cpu()
    other = None if held_out is None else model.scaled(held_out.to(model.device)).cpu()
    variance = (known - known.mean(0)).square().sum().clamp_min(1e-12) / len(known)
    size = code_size(model, train[:1024])

    def fraction(made: Tensor, target: Tensor) -> float:
        return float((made - target).square().sum() / len(target) / variance)

    def own(samples: Tensor, target: Tensor) -> float:
        return fraction(model.scaled(model.reconstruct(samples)).cpu(), target)

    scores = [
        Score(
            model.name,
            size,
            own(train, known),
            None if held_out is None or other is None else own(held_out, other),
        )
    ]
    for components in (size, 0):
        simple = PCA.fit(known, components)
        rest = None if other is None else fraction(simple.reconstruct(other), other)
        name = pca_name(len(simple.axes)) if components else "mean"
        scores.append(
            Score(name, len(simple.axes), fraction(simple.reconstruct(known), known), rest)
        )
    return Fitted(model, tuple(scores), _memorises(scores[0], scores[1]), log)


def pca_name(components: int) -> str:
    """What PCA is called beside a model."""
    return f"PCA, {components} component{'s' if components != 1 else ''}"


def check_contamination(contamination: float | None) -> None:
    """UsageError unless it is a share, or None."""
    if contamination is not None and not 0 < contamination < 1:
        raise UsageError(f"contamination must be in (0, 1), not {contamination}")


def calibrate(model: Autoencoder, samples: Tensor, contamination: float) -> None:
    """Set ``model.threshold`` so that a share of the samples scores below it."""
    check_contamination(contamination)
    scores = model.score_samples(samples).double()
    model.threshold = float(scores.quantile(contamination))


def _memorises(own: Score, simple: Score) -> bool:
    if own.held_out is None or simple.held_out is None:
        return False
    gap = own.held_out / max(own.train, 1e-6)
    simple_gap = simple.held_out / max(simple.train, 1e-6)
    return gap > _MEMORISING * max(1.0, simple_gap) and own.held_out > 0.01
