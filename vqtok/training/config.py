"""The settings of a run, and its learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vqtok.errors import UsageError

MAX_SEED = 10**12


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        steps: optimizer steps of the whole run; the learning rate reaches zero with the last.
        batch_size: crops in a step.
        crop: their side in pixels.
        learning_rate: the peak of the schedule: linear warm-up, then half a cosine.
        warmup: steps of the warm-up.
        weight_decay: of AdamW.
        clip: largest gradient norm.
        average_decay: of the running mean of the weights, which is what gets saved.
        autocast: compute the network in bfloat16 (weights and losses stay float32).
        seed: of initialisation, crops and everything random in the model.
        log_every, save_every: steps between metrics, and between checkpoints with a preview.
    """

    steps: int
    batch_size: int = 16
    crop: int = 128
    learning_rate: float = 1e-3
    warmup: int = 200
    weight_decay: float = 1e-4
    clip: float = 1.0
    average_decay: float = 0.999
    autocast: bool = True
    seed: int = 0
    log_every: int = 50
    save_every: int = 1000

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "crop", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UsageError(f"learning_rate must be positive, not {self.learning_rate}")
        check_seed(self.seed)


def check_seed(seed: int) -> None:
    """UsageError unless ``seed`` is one from which torch can make others."""
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"seed must be in 0..{MAX_SEED:,}, not {seed}")


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up to the peak, then half a cosine to zero at the last step."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
