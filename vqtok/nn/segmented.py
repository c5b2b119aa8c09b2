"""The stereo model of EnCodec, which sees a second at a time (arXiv:2210.13438, section 3.1).

The layers of :mod:`vqtok.nn.seanet` with a normalisation over channels and time after each, so that
all of a segment depends on all of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from vqtok.nn.seanet import Layout
from vqtok.nn.sound import SoundStack


class SegmentedStack(SoundStack):
    """What encoder and decoder have in common.

    Args:
        channels: width of the stage at the sample rate; every stage further doubles it.
        strides: of the stages, from the samples on; their product is the hop.
        dim: D, the dimension of a latent.
        sample_rate: in Hz.
        recurrent_layers: of the LSTM.
        segment: samples of a segment, a multiple of the hop.
        step: samples from the start of a segment to that of the next: at least half a segment, so
            that no more than two overlap.
    """

    context = None
    ends = "segments"
    inputs = 2
    segment: int
    step: int

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        *,
        dim: int = 128,
        sample_rate: int = 48_000,
        recurrent_layers: int = 2,
        segment: int = 48_000,
        step: int = 47_520,
    ) -> None:
        super().__init__()
        self.hop = math.prod(strides)
        if min(sample_rate, recurrent_layers, self.hop) < 1:
            raise ValueError("sample_rate, layers and strides must be positive")
        if segment < 1 or segment % self.hop or not segment / 2 <= step <= segment:
            raise ValueError(
                f"segments of {segment} samples every {step}: they must be a multiple of the hop "
                f"({self.hop}) and begin after at least half of the one before"
            )
        self.config = {
            "type": "seanet_segments",
            "channels": channels,
            "strides": list(strides),
            "dim": dim,
            "sample_rate": sample_rate,
            "recurrent_layers": recurrent_layers,
            "segment": segment,
            "step": step,
        }
        self.dim = dim
        self.sample_rate = sample_rate
        self.segment, self.step = segment, step
        self.layers = self._layers(
            Layout(
                channels,
                strides,
                dim,
                inputs=self.inputs,
                recurrent_layers=recurrent_layers,
                causal=False,
                normed=True,
            )
        )

    def _layers(self, layout: Layout) -> nn.Sequential:
        raise NotImplementedError


class SegmentedEncoder(SegmentedStack):
    """A segment of stereo sound to latents; see :class:`SegmentedStack`."""

    def _layers(self, layout: Layout) -> nn.Sequential:
        return layout.encoder()

    def forward(self, wave: Tensor) -> Tensor:
        """float [B, 2, T], as loud as the model takes it -> latents [B, ceil(T / hop), D]."""
        latents: Tensor = self.layers(wave)
        return latents.transpose(1, 2)


class SegmentedDecoder(SegmentedStack):
    """Latents of a segment to samples, with the arguments of :class:`SegmentedEncoder`."""

    def _layers(self, layout: Layout) -> nn.Sequential:
        return layout.decoder()

    def forward(self, latents: Tensor) -> Tensor:
        """[B, n, D] -> float [B, 2, n * hop]."""
        wave: Tensor = self.layers(latents.transpose(1, 2))
        return wave
