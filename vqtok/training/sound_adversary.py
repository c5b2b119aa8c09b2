"""The second player for sound: makes reconstructions livelier than distances alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vqtok.nn.sound_discriminator import SoundDiscriminator
from vqtok.training.adversary import Adversary

Judged = list[tuple[Tensor, list[Tensor]]]


class SoundAdversary(Adversary):
    """Judges spectra of several resolutions, with hinge losses and feature matching.

    Meant for a short last phase, started from a model trained without it.

    Args:
        windows: lengths of the judges' windows in samples.
        channels: their width.
        adversarial: weight of what fools the judges, within the loss of that name.
        features: weight of the distance of their features, relative to those of the real sound.
    """

    def __init__(
        self,
        windows: Sequence[int] = (512, 1024, 2048),
        *,
        channels: int = 16,
        adversarial: float = 0.02,
        features: float = 0.04,
    ) -> None:
        super().__init__()
        self.config = {
            "type": "sound",
            "windows": list(windows),
            "channels": channels,
            "adversarial": adversarial,
            "features": features,
        }
        self.discriminator = SoundDiscriminator(windows, channels)
        self.weights = {"adversarial": adversarial, "features": features}

    def fool(self, output: Tensor, target: Tensor, step: int) -> dict[str, Tensor]:
        """``adversarial``, the hinge of verdicts on the output; ``features``, their distance."""
        self.requires_grad_(False)
        judged: Judged = self.discriminator(output)
        with torch.no_grad():
            real: Judged = self.discriminator(target)
        self.requires_grad_(True)
        hinges = [F.relu(1 - verdict.float()).mean() for verdict, _ in judged]
        distances = [
            (ours.float() - theirs.float()).abs().mean() / theirs.float().abs().mean()
            for (_, first), (_, second) in zip(judged, real, strict=True)
            for ours, theirs in zip(first, second, strict=True)
        ]
        return {
            "adversarial": self.weights["adversarial"] * torch.stack(hinges).mean(),
            "features": self.weights["features"] * torch.stack(distances).mean(),
        }

    def learn(self, output: Tensor, target: Tensor, step: int) -> Tensor:
        """The hinge loss of real sounds above 1 and reconstructions below -1."""
        real, coded = self.discriminator(target), self.discriminator(output)
        losses = [
            F.relu(1 - first.float()).mean() + F.relu(1 + second.float()).mean()
            for (first, _), (second, _) in zip(real, coded, strict=True)
        ]
        return torch.stack(losses).mean()
