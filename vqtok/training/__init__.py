"""Training: one loop for everything, its data and its state on disk."""

from __future__ import annotations

from vqtok.training.config import TrainConfig
from vqtok.training.crops import PhotoCrops
from vqtok.training.guard import NotFiniteError
from vqtok.training.trainer import Trainer

__all__ = ["NotFiniteError", "PhotoCrops", "TrainConfig", "Trainer"]
