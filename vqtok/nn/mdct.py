"""The modified discrete cosine transform, the lapped transform of MP3, AAC and Opus."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtok.nn.waves import check_waves


class MDCT(nn.Module):
    """Frames of two hops, half overlapping, with a sine window (Princen and Bradley, 1986).

    ``hop`` samples become ``hop`` coefficients, and overlap-add of the inverse cancels the
    aliasing: the transform is orthonormal, so errors in coefficients and in samples have the same
    energy. Frame i is centred on samples i * hop .. (i + 1) * hop and reaches half a hop beyond
    them on both sides; outside the signal is silence. The first and last half hop of a signal lie
    under one frame alone: silence must surround what is to come back exactly.

    Args:
        hop: M, even.
    """

    def __init__(self, hop: int) -> None:
        super().__init__()
        if hop < 2 or hop % 2:
            raise ValueError(f"hop must be even and at least 2, not {hop}")
        self.hop = hop
        sample = torch.arange(2 * hop, dtype=torch.float64)[:, None]
        frequency = torch.arange(hop, dtype=torch.float64)[None, :]
        window = torch.sin(math.pi / (2 * hop) * (sample + 0.5))
        phase = math.pi / hop * (sample + 0.5 + hop / 2) * (frequency + 0.5)
        scale = math.sqrt(2 / hop) * window
        self.register_buffer("cosines", (scale * phase.cos()).float(), persistent=False)
        self.register_buffer("sines", (scale * phase.sin()).float(), persistent=False)
        self.cosines: Tensor
        self.sines: Tensor

    def forward(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """Analyse.

        Args:
            wave: float [B, T], T a multiple of ``hop``.

        Returns:
            The coefficients [B, T / hop, hop], lowest frequency first, and those of the sine
            transform (MDST), with which they make a complex spectrum.

        Raises:
            ValueError: T is no multiple of the hop.
        """
        check_waves(wave, self.hop)
        with torch.autocast(wave.device.type, enabled=False):
            padded = F.pad(wave.to(self.cosines.dtype), (self.hop // 2, self.hop // 2))
            if wave.shape[1] == 0:
                frames = padded.new_zeros(len(wave), 0, 2 * self.hop)
            else:
                frames = padded.unfold(1, 2 * self.hop, self.hop)
            return frames @ self.cosines, frames @ self.sines

    def inverse(self, coefficients: Tensor) -> Tensor:
        """Coefficients [B, n, hop] to samples [B, n * hop]."""
        with torch.autocast(coefficients.device.type, enabled=False):
            frames = coefficients.to(self.cosines.dtype) @ self.cosines.T
            first, second = frames[..., : self.hop], frames[..., self.hop :]
            blocks = F.pad(first, (0, 0, 0, 1)) + F.pad(second, (0, 0, 1, 0))
            return blocks.flatten(1)[:, self.hop // 2 : blocks[0].numel() - self.hop // 2]
