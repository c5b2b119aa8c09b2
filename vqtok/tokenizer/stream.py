"""Sound in pieces: push samples and get codes, push codes and get samples."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from vqtok.media.resampling import Resampler, resampled_length
from vqtok.quantizers.base import check_codes
from vqtok.tokenizer.blocks import BlockCoder
from vqtok.tokenizer.choice import Choice, StreamedChoice


@dataclass(frozen=True)
class AudioFormat:
    """Of the samples that go in or come out, and of the network between.

    Attributes:
        sample_rate: in Hz, outside.
        channels: C.
        network_rate: in Hz, inside.
        hop: samples per frame, inside.
    """

    sample_rate: int
    channels: int
    network_rate: int
    hop: int

    def __post_init__(self) -> None:
        if not isinstance(self.sample_rate, Integral):
            raise ValueError(
                f"sample_rate must be an integer, in Hz, not {self.sample_rate!r}; round it, or "
                "resample the sound"
            )
        if self.sample_rate < 1 or self.channels < 1:
            raise ValueError(
                f"sample_rate is {self.sample_rate}, channels {self.channels}: must be at least 1"
            )

    def frames(self, samples: int) -> int:
        """Frames of codes of a sound with so many samples (outside) per channel."""
        inside = resampled_length(samples, self.sample_rate, self.network_rate)
        return self.frames_inside(inside)

    def samples(self, frames: int) -> int:
        """Most samples (outside) per channel that so many frames are sure to fill."""
        return self.samples_inside(frames) * self.sample_rate // self.network_rate

    def frames_inside(self, samples: int) -> int:
        """Frames of codes of so many samples (inside) per channel."""
        return -(-samples // self.hop)

    def samples_inside(self, frames: int) -> int:
        """Most samples (inside) per channel with so many frames; ValueError if none have."""
        return frames * self.hop

    @property
    def code_channels(self) -> int:
        """Channels of codes."""
        return self.channels

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.network_rate / self.hop


class EncoderStream:
    """Samples to codes; how the samples are cut into pushes makes no difference.

    Make one with ``tokenizer.stream``.

    Attributes:
        latency: seconds of sound after a sample's own that are waited for before its codes come,
            at most: a block and the encoder's look-ahead (and some milliseconds of resampling, if
            there is any).
    """

    def __init__(
        self,
        coder: BlockCoder,
        audio: AudioFormat,
        num_codebooks: int,
        choice: Choice | None = None,
    ) -> None:
        before, after = coder.encoder_margin
        self._choose = None if choice is None else StreamedChoice(choice)
        self.latency = (coder.block + after) * coder.hop / audio.network_rate
        self._coder = coder
        self._audio = audio
        self._num_codebooks = num_codebooks
        self._resampler = Resampler(audio.sample_rate, audio.network_rate, audio.channels)
        self._waiting = torch.zeros(audio.channels, before * coder.hop)
        self._samples = 0
        self._frames = 0
        self._finished = False

    def push(self, samples: Tensor) -> Tensor:
        """Code a piece.

        Args:
            samples: float32 [C, n], n may be 0.

        Returns:
            int64 [t, C, q], the codes that are certain by now, on the CPU; t may be 0.

        Raises:
            ValueError: wrong shape or type, a sample that is not finite, or the stream is finished.
        """
        _check_open(self._finished)
        channels = self._audio.channels
        if not isinstance(samples, Tensor) or samples.ndim != 2 or len(samples) != channels:
            raise ValueError(
                f"samples must be a torch tensor [C, n] with C = {channels}, not {_form(samples)}"
            )
        if not samples.is_floating_point():
            raise ValueError(f"samples must be floating point, full scale 1, not {samples.dtype}")
        if not bool(samples.isfinite().all()):
            raise ValueError("samples must be finite, there is a NaN or infinity among them")
        self._samples += samples.shape[1]
        pushed = self._resampler.push(samples.detach().cpu().float().numpy())
        return self._take(pushed)

    def finish(self) -> Tensor:
        """The codes of the rest, int64 [t, C, q]; the stream is spent.

        Raises:
            ValueError: the stream is finished.
        """
        self._close()
        coder, frames = self._coder, self._audio.frames(self._samples)
        codes = self._take(self._resampler.finish())
        if self._frames < frames:
            blocks = -(-(frames - self._frames) // coder.block)
            wanted = (blocks * coder.block + sum(coder.encoder_margin)) * coder.hop
            silence = np.zeros((self._audio.channels, wanted - self._waiting.shape[1]), np.float32)
            missing = frames - self._frames
            codes = torch.cat([codes, self._take(silence)[:missing]])
        return codes

    def _close(self) -> None:
        _check_open(self._finished)
        self._finished = True

    def _take(self, samples: np.ndarray) -> Tensor:
        """Code every block that is complete with these samples (at the network's rate)."""
        coder, channels = self._coder, self._audio.channels
        mixed = to_mid_side(torch.from_numpy(np.ascontiguousarray(samples)))
        self._waiting = torch.cat([self._waiting, mixed], dim=1)
        step = coder.block * coder.hop
        window = step + sum(coder.encoder_margin) * coder.hop
        starts = range(0, self._waiting.shape[1] - window + 1, step)
        windows = [
            self._waiting[channel, start : start + window]
            for start in starts
            for channel in range(channels)
        ]
        coded = self._code_windows(windows)
        self._waiting = self._waiting[:, len(starts) * step :].clone()
        self._frames += len(starts) * coder.block
        if not coded:
            return torch.empty(0, channels, self._num_codebooks, dtype=torch.int64)
        return torch.cat(coded)

    def _code_windows(self, windows: list[Tensor], kept: slice | None = None) -> list[Tensor]:
        """Codes int64 [t, C, q] of each block, of which every channel is a window."""
        channels = self._audio.channels
        if self._choose is None:
            coded = self._coder.encode(windows, self._num_codebooks, kept)
        else:
            coded = self._coder.latents(windows, kept)
        blocks = [
            torch.stack(coded[first : first + channels], dim=1)
            for first in range(0, len(coded), channels)
        ]
        return blocks if self._choose is None else [self._choose(block) for block in blocks]


class DecoderStream:
    """Codes to samples; how the codes are cut into pushes makes no difference.

    Make one with ``tokenizer.stream``.

    Attributes:
        latency: seconds of codes after a sample's own that are waited for before it comes, at
            most: a block and the decoder's look-ahead.
    """

    def __init__(self, coder: BlockCoder, audio: AudioFormat, num_codebooks: int) -> None:
        self.latency = (coder.block + coder.decoder_margin[1]) * coder.hop / audio.network_rate
        self._coder = coder
        self._audio = audio
        self._num_codebooks = num_codebooks
        self._resampler = Resampler(audio.network_rate, audio.sample_rate, audio.channels)
        self._waiting = torch.empty(0, audio.code_channels, num_codebooks, dtype=torch.int64)
        self._started = False
        self._pushed = 0
        self._frames = 0
        self._given = 0
        self._finished = False

    def push(self, codes: Tensor) -> Tensor:
        """Decode a piece.

        Args:
            codes: integer [t, C, q], t may be 0.

        Returns:
            float32 [C, n], the samples that are certain by now, on the CPU; n may be 0.

        Raises:
            ValueError: wrong shape, a code is out of range, or the stream is finished.
        """
        _check_open(self._finished)
        shape = (self._audio.code_channels, self._num_codebooks)
        if not isinstance(codes, Tensor) or codes.ndim != 3 or codes.shape[1:] != shape:
            raise ValueError(
                f"codes must be a torch tensor [t, {shape[0]}, {shape[1]}], not {_form(codes)}"
            )
        check_codes(codes, self._coder.autoencoder.quantizer.codebook_sizes)
        codes = codes.cpu().long()
        if not self._started:
            self._started = True
            codes = torch.cat([self._silence(self._coder.decoder_margin[0]), codes])
            self._pushed -= self._coder.decoder_margin[0]
        self._pushed += len(codes)
        samples = self._resampler.push(self._take(codes))
        self._given += samples.shape[1]
        return torch.from_numpy(samples)

    def finish(self, samples: int | None = None) -> Tensor:
        """The rest, float32 [C, n]; the stream is spent.

        Args:
            samples: per channel, of the whole sound as it was before encoding. Default: as many
                as the codes are sure to fill.

        Raises:
            ValueError: a sound of so many samples does not have so many codes (the stream can go
                on), or the stream is finished.
        """
        _check_open(self._finished)
        samples = self._audio.samples(self._pushed) if samples is None else samples
        check_samples(self._audio, self._pushed, samples)
        self._finished = True
        left = samples - self._given
        pieces = []
        missing = self._pushed - self._frames
        if missing:
            pieces.append(self._resampler.push(self._take_rest(missing)))
        pieces.append(self._resampler.finish(samples))
        return torch.from_numpy(np.concatenate(pieces, axis=1)[:, :left])

    def _take_rest(self, missing: int) -> np.ndarray:
        """Decode the last frames, which wait for what would come after them."""
        coder = self._coder
        blocks = -(-missing // coder.block)
        wanted = blocks * coder.block + sum(coder.decoder_margin) - len(self._waiting)
        return self._take(self._silence(wanted))[:, : missing * coder.hop]

    def _silence(self, frames: int) -> Tensor:
        """Codes of silence for all channels, int64 [frames, C, q]."""
        silence = self._coder.silence[: self._num_codebooks]
        return silence.expand(frames, self._audio.channels, -1)

    def _take(self, codes: Tensor) -> np.ndarray:
        """Decode every block that is complete with these codes (at the network's rate)."""
        coder, channels = self._coder, self._audio.channels
        self._waiting = torch.cat([self._waiting, codes])
        window = coder.block + sum(coder.decoder_margin)
        starts = range(0, len(self._waiting) - window + 1, coder.block)
        windows = [
            self._waiting[start : start + window, channel]
            for start in starts
            for channel in range(channels)
        ]
        decoded = coder.decode(windows)
        self._waiting = self._waiting[len(starts) * coder.block :].clone()
        self._frames += len(starts) * coder.block
        if not decoded:
            return np.zeros((channels, 0), np.float32)
        blocks = torch.stack(decoded).reshape(len(starts), channels, -1)
        return from_mid_side(blocks.transpose(0, 1).flatten(1)).numpy()


@dataclass(frozen=True)
class AudioStream:
    """Both directions of a sound in pieces; see the classes of its two halves."""

    encoder: EncoderStream
    decoder: DecoderStream


def _check_open(finished: bool) -> None:
    if finished:
        raise ValueError("the stream is finished; make another")


def _form(value: object) -> str:
    """What a message says of an argument of the wrong kind: its shape if it is a tensor."""
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def check_samples(audio: AudioFormat, frames: int, samples: int) -> None:
    """ValueError unless a sound of ``samples`` has ``frames`` of codes."""
    if samples < 0 or audio.frames(samples) != frames:
        raise ValueError(
            f"{frames} frames of codes cannot be a sound of {samples} samples at "
            f"{audio.sample_rate} Hz"
        )


def to_mid_side(samples: Tensor) -> Tensor:
    """Left and right [2, n] to their mean and half their difference; other [C, n] stay."""
    if len(samples) != 2:
        return samples
    left, right = samples
    return torch.stack([(left + right) / 2, (left - right) / 2])


def from_mid_side(samples: Tensor) -> Tensor:
    """The inverse of :func:`to_mid_side`."""
    if len(samples) != 2:
        return samples
    mid, side = samples
    return torch.stack([mid + side, mid - side])
