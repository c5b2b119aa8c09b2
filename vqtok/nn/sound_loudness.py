"""How differently loud two sounds are to the ear."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vqtok.nn.spectrum import Spectrum

_LEVEL = 10**7.9
"""The target is played at 79 dB above the threshold's reference, as telephones are judged."""
_SILENCE = 1e-6
"""Of full scale's power: quieter targets are not played louder than one of this power."""
_EXPONENT = 0.23


class Loudness(nn.Module):
    """The disturbance of a listener, after ITU-T P.862 (2001), in a form that can be learned from.

    Powers of both sounds in bands of equal width to the ear, 60 Hz to 8 kHz, become loudnesses
    (Zwicker's power law above the threshold of hearing); differences below a quarter of the
    smaller loudness are masked. Each frame of 32 ms adds the root mean square of the rest over
    bands, times 0.1, and its mean, with more weight where the output has more power than the
    target, times 0.15. The target's level doesn't matter.

    Unlike there, frames of the output are not brought to the target's level, and the difference
    of the mean loudnesses of the two sounds adds to the rest, times 0.3: or else quiet sounds come
    back louder. Nothing is aligned in time, and all frames count the same.

    Args:
        sample_rate: in Hz.
        bands: their number.
    """

    def __init__(self, sample_rate: int = 24_000, bands: int = 40) -> None:
        super().__init__()
        length = 4 * round(0.008 * sample_rate)
        self.spectrum = Spectrum(length)
        edges = torch.linspace(_bark(60), _bark(min(8000, sample_rate / 2)), bands + 1).double()
        self.register_buffer(
            "filters", _bands(_hertz(edges), sample_rate, length).float(), persistent=False
        )
        threshold = _threshold(_hertz((edges[1:] + edges[:-1]) / 2))
        self.register_buffer("threshold", threshold.float(), persistent=False)
        self.filters: Tensor
        self.threshold: Tensor

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Scalar disturbance of float32 [B, T] sounds, a mean over frames; 0 if they are equal."""
        heard, said = self._powers(output), self._powers(target)
        gain = _LEVEL / said.mean((1, 2), keepdim=True).clamp_min(_SILENCE) / said.shape[-1]
        heard, said = heard * gain, said * gain
        first, second = self._loudness(heard), self._loudness(said)
        masked = 0.25 * torch.minimum(first, second)
        rest = ((first - second).abs() - masked).clamp_min(0)
        added = ((heard + 50) / (said + 50)).pow(1.2).clamp_max(12)
        both = (rest.square().mean(-1) + 1e-6).sqrt() - 1e-3
        disturbance: Tensor = (0.1 * both + 0.15 * (rest * added).mean(-1)).mean()
        level = (first - second).mean((1, 2)).abs().mean()
        return disturbance + 0.3 * level

    def _powers(self, wave: Tensor) -> Tensor:
        """[B, frames, bands]."""
        powers: Tensor = self.spectrum(wave).square().sum(-1) @ self.filters
        return powers

    def _loudness(self, powers: Tensor) -> Tensor:
        scale = (self.threshold / 0.5).pow(_EXPONENT)
        return scale * ((0.5 + 0.5 * powers / self.threshold).pow(_EXPONENT) - 1)


def _bark(hertz: float) -> float:
    """Critical bands below a frequency (Wang, Sekey and Gersho, 1992)."""
    return 6 * math.asinh(hertz / 600)


def _hertz(bark: Tensor) -> Tensor:
    return 600 * torch.sinh(bark / 6)


def _bands(edges: Tensor, sample_rate: int, length: int) -> Tensor:
    """float64 [bins, bands]: means over the bins within each band, by their share of it."""
    width = sample_rate / length
    bins = torch.arange(length // 2 + 1, dtype=torch.float64)[:, None] * width
    upper = torch.minimum(bins + width / 2, edges[1:])
    shares = (upper - torch.maximum(bins - width / 2, edges[:-1])).clamp_min(0)
    return shares / shares.sum(0)


def _threshold(hertz: Tensor) -> Tensor:
    """The power that is just heard in silence (Terhardt, 1979)."""
    kilohertz = hertz / 1000
    dip = 6.5 * torch.exp(-0.6 * (kilohertz - 3.3).square())
    decibels = 3.64 * kilohertz.pow(-0.8) - dip + 1e-3 * kilohertz.pow(4)
    return 10 ** (decibels / 10)
