"""Stereo sound in overlapping segments, each as loud as the next (EnCodec's 48 kHz model).

A segment is divided by its loudness, coded by itself, and multiplied again after decoding; where
two segments overlap one fades into the other. The codes of a segment are its frames after some for
the loudness: the 32 bits of that float32, lowest first, as codes of the first codebook (as many
bits as each holds whole; 4 codes of 1,024) beside zeros for the others. So the first q codebooks
are always a whole, coarser description.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqtok.autoencoders import Autoencoder
from vqtok.errors import DataError, UsageError
from vqtok.tokenizer.blocks import BlockCoder, each_alone
from vqtok.tokenizer.choice import Choice
from vqtok.tokenizer.stream import AudioFormat, DecoderStream, EncoderStream

_FLOAT_BITS = 32


def loudness_frames(codebook_size: int) -> int:
    """How many codes of a codebook hold a float32."""
    return -(-_FLOAT_BITS // _bits(codebook_size))


def loudness_to_codes(loudness: float, codebook_size: int) -> Tensor:
    """int64 [:func:`loudness_frames`]: the bits of a float32, lowest first."""
    (value,) = struct.unpack("<I", struct.pack("<f", loudness))
    bits = _bits(codebook_size)
    places = range(0, bits * loudness_frames(codebook_size), bits)
    return torch.tensor([value >> place & (1 << bits) - 1 for place in places])


def codes_to_loudness(codes: Tensor, codebook_size: int) -> float:
    """The inverse of :func:`loudness_to_codes`; DataError for what is no loudness."""
    bits = _bits(codebook_size)
    value = sum(int(code) << index * bits for index, code in enumerate(codes))
    if value < 1 << _FLOAT_BITS:
        loudness: float = struct.unpack("<f", struct.pack("<I", value))[0]
        if math.isfinite(loudness) and loudness > 0:
            return loudness
    raise DataError(
        f"codes {codes.tolist()} at the start of a segment are no loudness: they were not made by "
        "this tokenizer, or belong elsewhere in the sound"
    )


def _bits(codebook_size: int) -> int:
    """Whole bits that a code of a codebook holds."""
    return codebook_size.bit_length() - 1


@dataclass(frozen=True)
class SegmentFormat(AudioFormat):
    """As :class:`AudioFormat`, of mono and stereo sounds that share one channel of codes.

    Attributes:
        segment: samples of a segment, inside.
        step: samples from the start of a segment to that of the next, inside.
        codebook_size: of the first codebook.

    Raises DataError for more than two channels.
    """

    segment: int
    step: int
    codebook_size: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels > 2:
            raise DataError(
                f"this tokenizer codes mono and stereo, not {self.channels} channels: mix them down"
            )

    @property
    def code_channels(self) -> int:
        return 1

    @property
    def frame_rate(self) -> float:
        return (self.header + self.full) * self.network_rate / self.step

    @property
    def header(self) -> int:
        """Frames for the loudness of a segment."""
        return loudness_frames(self.codebook_size)

    @property
    def full(self) -> int:
        """Frames of a whole segment, its loudness aside."""
        return self.segment // self.hop

    def frames_inside(self, samples: int) -> int:
        count = -(-samples // self.step)
        ends = self.segments(samples, max(count - 2, 0))
        return max(count - 2, 0) * (self.header + self.full) + sum(self.header + n for n in ends)

    def segments(self, samples: int, first: int = 0) -> list[int]:
        """Frames of each segment of so many samples, inside, from the segment ``first`` on."""
        starts = range(first * self.step, samples, self.step)
        return [-(-min(self.segment, samples - start) // self.hop) for start in starts]

    def samples_inside(self, frames: int) -> int:
        lengths = range(frames * self.hop + 1)
        samples = bisect_right(lengths, frames, key=self.frames_inside) - 1
        if self.frames_inside(samples) != frames:
            raise ValueError(
                f"{frames} frames are no whole number of segments: one has {self.header} frames "
                f"for its loudness and at most {self.full} more"
            )
        return samples


class SegmentEncoderStream(EncoderStream):
    """Samples to codes; see :class:`EncoderStream`. Mono counts as stereo with equal channels."""

    def __init__(
        self,
        coder: BlockCoder,
        audio: AudioFormat,
        num_codebooks: int,
        choice: Choice | None = None,
    ) -> None:
        assert isinstance(audio, SegmentFormat)
        if choice is not None:
            raise UsageError(
                "rate_weight is not for a tokenizer that codes segments, whose codes also hold "
                "their loudness: leave it out"
            )
        super().__init__(coder, audio, num_codebooks)
        self._form = audio
        self._waiting = torch.zeros(2, 0)
        self.latency = audio.segment / audio.network_rate

    def finish(self) -> Tensor:
        """See :meth:`EncoderStream.finish`."""
        self._close()
        pieces = [self._take(self._resampler.finish())]
        starts = range(0, self._waiting.shape[1], self._form.step)
        pieces.append(self._code([self._window(start) for start in starts]))
        self._waiting = self._waiting[:, :0]
        return torch.cat(pieces)

    def _take(self, samples: np.ndarray) -> Tensor:
        """Code every segment that is complete with these samples (at the network's rate)."""
        both = torch.from_numpy(np.ascontiguousarray(samples)).expand(2, -1)
        if self._waiting.shape[1]:  # else no copy is needed
            both = torch.cat([self._waiting, both], dim=1)
        self._waiting = both
        starts = range(0, both.shape[1] - self._form.segment + 1, self._form.step)
        codes = self._code([self._window(start) for start in starts])
        self._waiting = self._waiting[:, len(starts) * self._form.step :].clone()
        return codes

    def _window(self, start: int) -> Tensor:
        """A segment, or what there is of it."""
        return self._waiting[:, start : start + self._form.segment]

    def _code(self, windows: Sequence[Tensor]) -> Tensor:
        """Codes [t, 1, q] of segments [2, n]."""
        model, form = self._coder.autoencoder, self._form
        device = self._coder.device

        def code(window: Tensor) -> Tensor:
            loudness = loudness_of(window)
            latents = model.encoder((window / loudness)[None].to(device))
            codes = model.quantizer(latents, num_codebooks=self._num_codebooks).codes[0].cpu()
            head = torch.zeros(form.header, codes.shape[1], dtype=torch.int64)
            head[:, 0] = loudness_to_codes(float(loudness), form.codebook_size)
            return torch.cat([head, codes])

        none = torch.empty(0, self._num_codebooks, dtype=torch.int64)
        return torch.cat([none, *each_alone(code, windows, device)])[:, None]


def loudness_of(wave: Tensor) -> Tensor:
    """float32 []: root mean square of the mean of the channels [C, n], never 0."""
    mono = wave.sum(0, keepdim=True) / len(wave)
    return (mono.square().mean(-1).sqrt() + 1e-8)[0]


class SegmentDecoderStream(DecoderStream):
    """Codes to samples; see :class:`DecoderStream`. Mono is the mean of both channels."""

    def __init__(self, coder: BlockCoder, audio: AudioFormat, num_codebooks: int) -> None:
        assert isinstance(audio, SegmentFormat)
        super().__init__(coder, audio, num_codebooks)
        self._form = audio
        self._started = True  # nothing comes before the first code
        self._weights: Tensor | None = None
        self._tail = torch.zeros(3, 0)
        # With so many frames there, what begins with them is a whole segment, and not the last.
        self._sure = audio.frames_inside(max(audio.step, (audio.full - 1) * audio.hop) + 1)
        self.latency = (self._sure - 2 * audio.header) * audio.hop / audio.network_rate

    def _take(self, codes: Tensor) -> np.ndarray:
        self._waiting = torch.cat([self._waiting, codes])
        pieces = [np.zeros((self._form.channels, 0), np.float32)]
        while len(self._waiting) >= self._sure:
            pieces.append(self._decode(self._form.full, self._form.step))
        return np.concatenate(pieces, axis=1)

    def _take_rest(self, missing: int) -> np.ndarray:
        total = self._form.samples_inside(self._frames + missing)
        first = self._frames // (self._form.header + self._form.full)
        *inner, last = self._form.segments(total, first)
        pieces = [self._decode(frames, self._form.step) for frames in inner]
        return np.concatenate([*pieces, self._decode(last, total)], axis=1)

    def _decode(self, frames: int, given: int) -> np.ndarray:
        """The first ``given`` samples of the next segment, or what there is of it.

        Weighted samples and weights [3, n] add up where segments overlap, and are divided then.
        """
        form, size = self._form, self._form.header + frames
        codes, self._waiting = self._waiting[:size, 0], self._waiting[size:]
        loudness = codes_to_loudness(codes[: form.header, 0], form.codebook_size)
        (sound,) = self._coder.decode([codes[form.header :]], slice(0, frames))
        length = sound.shape[1]
        if self._weights is None:
            self._weights = _fading(length)
        sums = torch.zeros(3, max(length, self._tail.shape[1]))
        sums[:2, :length] = self._weights[:length] * (sound * loudness)
        sums[2, :length] = self._weights[:length]
        sums[:, : self._tail.shape[1]] += self._tail
        self._tail = sums[:, given:].clone()
        self._frames += size
        out = sums[:2, :given] / sums[2, :given]
        return (out if form.channels == 2 else out.mean(0, keepdim=True)).numpy()


def _fading(length: int) -> Tensor:
    """float32 [length]: weights that rise from one end to the middle and fall to the other."""
    time = torch.linspace(0, 1, length + 2)[1:-1]
    return 0.5 - (time - 0.5).abs()


def segment_format(model: Autoencoder, sample_rate: int, channels: int) -> SegmentFormat:
    """Of sounds for a model whose encoder sees segments."""
    encoder: Any = model.encoder
    return SegmentFormat(
        *(sample_rate, channels, encoder.sample_rate, encoder.hop),
        segment=encoder.segment,
        step=encoder.step,
        codebook_size=model.quantizer.codebook_sizes[0],
    )
