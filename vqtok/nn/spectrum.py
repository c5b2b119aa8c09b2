"""Short-time spectra of waves, for losses."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Spectrum(nn.Module):
    """Short-time Fourier transform: float [B, T] to [B, frames, bins, 2], real and imaginary.

    Windows are of Hann, hops half of them; frames lie within the signal. White noise of unit power
    has unit power in each bin.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        if length < 4 or length % 4:
            raise ValueError(f"windows must be a multiple of 4 samples, not {length}")
        self.length = length
        window = torch.hann_window(length, dtype=torch.float64)
        window /= window.square().sum().sqrt()
        self.register_buffer("window", window.float(), persistent=False)
        self.window: Tensor

    def forward(self, wave: Tensor) -> Tensor:
        if wave.shape[-1] < self.length:
            wave = nn.functional.pad(wave, (0, self.length - wave.shape[-1]))
        frames = wave.unfold(-1, self.length, self.length // 2) * self.window
        return torch.view_as_real(torch.fft.rfft(frames))
