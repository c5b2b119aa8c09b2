"""Training: one loop for everything, its data and its state on disk."""

from __future__ import annotations

from vqtok.training.adversary import Adversary
from vqtok.training.arrays import Arrays
from vqtok.training.audio_crops import AudioCrops
from vqtok.training.config import TrainConfig
from vqtok.training.crops import PhotoCrops
from vqtok.training.data import TrainingData, prefetch
from vqtok.training.fit import Fitted, MemorisingWarning, default_config, fit
from vqtok.training.guard import NotFiniteError
from vqtok.training.photos import PhotoTask
from vqtok.training.sound_adversary import SoundAdversary
from vqtok.training.sounds import SoundTask
from vqtok.training.task import Inputs, Outcome, Task
from vqtok.training.trainer import Trainer

__all__ = [
    "Adversary",
    "Arrays",
    "AudioCrops",
    "Fitted",
    "Inputs",
    "MemorisingWarning",
    "NotFiniteError",
    "Outcome",
    "PhotoCrops",
    "PhotoTask",
    "SoundAdversary",
    "SoundTask",
    "Task",
    "TrainConfig",
    "Trainer",
    "TrainingData",
    "default_config",
    "fit",
    "prefetch",
]
