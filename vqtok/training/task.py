"""What the trainer must be told about a kind of data: one class per kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from vqtok.autoencoders import Autoencoder
from vqtok.training.adversary import Adversary
from vqtok.training.data import TrainingData


@dataclass(frozen=True)
class Inputs:
    """A batch as the model takes it.

    Attributes:
        values: [B, ...].
        mask: bool [B, T], True where a sequence has data; None where everything counts.
    """

    values: Tensor
    mask: Tensor | None = None


class Outcome(Protocol):
    """What a run makes: a tokenizer, or an autoencoder.

    Attributes:
        name: for people.
    """

    name: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 of configuration and weights."""

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors``."""


class Task(ABC):
    """How a kind of data goes in, what comes out, and how well it does.

    Attributes:
        unit: what a batch is made of, in the plural ("crops").
        adversary: trained against the model in the same loop, if there is one.
    """

    unit: str = "samples"
    adversary: Adversary | None = None

    def check(self, model: Autoencoder, data: TrainingData) -> None:  # noqa: B027
        """Raise UsageError if the data don't fit the model."""

    def prepare(self, model: Autoencoder) -> None:  # noqa: B027
        """Give a new model what was learned from the data before training, such as its scaling."""

    def start(  # noqa: B027
        self, model: Autoencoder, data: TrainingData, device: torch.device
    ) -> None:
        """Give a new model on its device what the first steps need, and one batch cannot show."""

    @abstractmethod
    def inputs(self, batch: Any, device: torch.device) -> Inputs:
        """A batch of the data as the model takes it."""

    @abstractmethod
    def outcome(
        self, model: Autoencoder, *, name: str, training: Mapping[str, Any], device: torch.device
    ) -> Outcome:
        """What the run is for, from a model of the averaged weights (which is the task's now).

        Args:
            model: on the CPU.
            name: for people.
            training: how the weights came about, to be kept with them.
            device: where the outcome will be looked at.
        """

    def validate(self, outcome: Outcome, batch: Any, folder: Path | None) -> dict[str, Any]:
        """Scores of a fixed batch as a line of the log, and a picture in the folder if it helps."""
        return {}
