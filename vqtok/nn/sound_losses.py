"""How different two sounds are: mel spectra, complex spectra, samples and loudness."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vqtok.nn.sound_loudness import Loudness
from vqtok.nn.spectrum import Spectrum

# -60 dB of full scale in every bin: differences below are hardly heard, and where recordings have
# no treble at all they would outweigh what is.
_FLOOR = 1e-3


class SoundLoss(nn.Module):
    """A weighted sum of distances, the first two over several resolutions.

    - ``mel``: mean absolute difference of log10(mel magnitudes + 1e-3), one band scale per
      resolution: how loud which frequencies are, whatever their phase.
    - ``spectrum``: mean absolute difference of real and imaginary parts of spectra whose
      magnitudes are raised to the power 0.5 (Gu and Diao, 2024, arXiv:2404.19441, with 0.3):
      ties phases down, quiet parts too.
    - ``samples``: mean absolute difference of the samples.
    - ``loudness``: see :class:`vqtok.nn.sound_loudness.Loudness`; left out if its weight is 0.

    Spectra are scaled so that white noise of unit power has unit power in each bin, windows are
    of Hann, hops half of them; frames lie within the signal.

    Args:
        sample_rate: in Hz.
        windows: window lengths in samples.
        mel, spectrum, samples, loudness: weights.
    """

    def __init__(
        self,
        sample_rate: int = 24_000,
        windows: Sequence[int] = (256, 512, 1024, 2048),
        *,
        mel: float = 1.0,
        spectrum: float = 0.5,
        samples: float = 0.5,
        loudness: float = 0.0,
    ) -> None:
        super().__init__()
        self.weights = {"mel": mel, "spectrum": spectrum, "samples": samples}
        if loudness:
            self.weights["loudness"] = loudness
            self.loudness = Loudness(sample_rate)
        self.spectra = nn.ModuleList([Spectrum(length) for length in windows])
        for index, length in enumerate(windows):
            filters = mel_filters(sample_rate, length, bands=max(8, length // 16))
            self.register_buffer(f"mel{index}", filters.float(), persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Scalar distance of float [B, T] sounds."""
        terms = self.terms(output, target)
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()

    def terms(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The unweighted terms, each a mean over resolutions."""
        with torch.autocast(output.device.type, enabled=False):
            output, target = output.float(), target.float()
            mels, complexes = [], []
            for index, spectrum in enumerate(self.spectra):
                filters = self.get_buffer(f"mel{index}")
                first, second = spectrum(output), spectrum(target)
                power, target_power = _power(first), _power(second)
                mels.append(_mel(power, filters).sub(_mel(target_power, filters)).abs().mean())
                complexes.append(_compressed(first, power).sub(_compressed(second, target_power)))
                complexes[-1] = complexes[-1].abs().mean()
            terms = {
                "mel": torch.stack(mels).mean(),
                "spectrum": torch.stack(complexes).mean(),
                "samples": (output - target).abs().mean(),
            }
            if "loudness" in self.weights:
                terms["loudness"] = self.loudness(output, target)
            return terms


def mel_filters(sample_rate: int, length: int, bands: int) -> Tensor:
    """Triangles evenly spaced in mels (2595 log10(1 + f / 700)) from 0 Hz to half the rate.

    Returns:
        float64 [bins, bands]; each column sums to 1, and every band has at least one bin.
    """
    bins = torch.arange(length // 2 + 1, dtype=torch.float64) * sample_rate / length
    top = 2595 * math.log10(1 + sample_rate / 2 / 700)
    mels = torch.linspace(0, top, bands + 2, dtype=torch.float64)
    edges = 700 * (10 ** (mels / 2595) - 1)
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    filters = torch.minimum(rising, falling).clamp_min(0)
    nearest = (bins[:, None] - edges[1:-1]).abs().argmin(0)
    empty = filters.sum(0) == 0
    filters[nearest[empty], empty.nonzero()[:, 0]] = 1.0
    return filters / filters.sum(0)


def _power(spectrum: Tensor) -> Tensor:
    return spectrum.square().sum(-1) + 1e-10


def _mel(power: Tensor, filters: Tensor) -> Tensor:
    return (power.sqrt() @ filters + _FLOOR).log10()


def _compressed(spectrum: Tensor, power: Tensor) -> Tensor:
    """Magnitudes to the power 0.5, phases kept."""
    return spectrum * power.sqrt().rsqrt()[..., None]
