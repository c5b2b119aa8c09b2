"""The distance of sounds that audio tokenizers are trained with."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from vqtok.autoencoders.likelihoods.base import Likelihood
from vqtok.nn.sound_losses import SoundLoss


class SoundDistance(Likelihood):
    """:class:`vqtok.nn.sound_losses.SoundLoss` between waves [B, T]: no likelihood, in no unit.

    Args:
        sample_rate: in Hz.
        mel, spectrum, samples, loudness: the weights of its terms.
    """

    per_value: ClassVar[bool] = True

    def __init__(
        self,
        sample_rate: int = 24_000,
        *,
        mel: float = 1.0,
        spectrum: float = 0.5,
        samples: float = 0.5,
        loudness: float = 0.0,
    ) -> None:
        super().__init__()
        self.config = {
            "type": "sound",
            "sample_rate": sample_rate,
            "mel": mel,
            "spectrum": spectrum,
            "samples": samples,
        }
        if loudness:  # left out otherwise, so that older configs keep their fingerprint
            self.config["loudness"] = loudness
        self.distance = SoundLoss(
            sample_rate, mel=mel, spectrum=spectrum, samples=samples, loudness=loudness
        )

    def forward(self, output: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss, a scalar. What the mask leaves out must be silence in both."""
        distance: Tensor = self.distance(output, target)
        return distance

    def cost(self, output: Tensor, target: Tensor) -> Tensor:
        """Absolute error of each sample: spectra belong to no single one."""
        return (output - target).abs()
