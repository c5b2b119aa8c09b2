"""A judge of sounds: convolutions over spectra of several resolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from vqtok.nn.spectrum import Spectrum


class SpectrumDiscriminator(nn.Module):
    """Tells real sounds from coded ones by one complex spectrum (Defossez et al., 2022,
    arXiv:2210.13438, section 3.4), whose magnitudes are raised to the power 0.5.

    Args:
        window: length of the windows in samples.
        channels: width of the layers.
    """

    def __init__(self, window: int, channels: int = 16) -> None:
        super().__init__()
        self.spectrum = Spectrum(window)
        strided = [
            nn.Conv2d(
                channels,
                channels,
                (3, 9),
                stride=(1, 2),
                dilation=(dilation, 1),
                padding=(dilation, 4),
            )
            for dilation in (1, 2, 4)
        ]
        layers = [
            nn.Conv2d(2, channels, (3, 9), padding=(1, 4)),
            *strided,
            nn.Conv2d(channels, channels, 3, padding=1),
        ]
        self.layers = nn.ModuleList([weight_norm(layer) for layer in layers])
        self.verdict = weight_norm(nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, wave: Tensor) -> tuple[Tensor, list[Tensor]]:
        """float [B, T] -> verdicts [B, frames, places], positive for real; features of layers."""
        with torch.autocast(wave.device.type, enabled=False):
            spectrum: Tensor = self.spectrum(wave.float())
            power = spectrum.square().sum(-1, keepdim=True) + 1e-6
            x = (spectrum * power ** (-0.25)).permute(0, 3, 1, 2)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        verdict: Tensor = self.verdict(x)
        return verdict[:, 0], features


class SoundDiscriminator(nn.Module):
    """One :class:`SpectrumDiscriminator` for each window.

    Args:
        windows: their lengths in samples.
        channels: width of the layers.
    """

    def __init__(self, windows: Sequence[int] = (512, 1024, 2048), channels: int = 16) -> None:
        super().__init__()
        self.judges = nn.ModuleList([SpectrumDiscriminator(each, channels) for each in windows])

    def forward(self, wave: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
        """float [B, T] -> what each judge says."""
        return [judge(wave) for judge in self.judges]
