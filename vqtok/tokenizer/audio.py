"""Sounds to codes and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vqtok.autoencoders import Autoencoder
from vqtok.quantizers.base import check_num_codebooks
from vqtok.tokenizer.base import Tokenizer
from vqtok.tokenizer.blocks import BlockCoder
from vqtok.tokenizer.cut import CutDecoderStream, CutEncoderStream
from vqtok.tokenizer.segments import SegmentDecoderStream, SegmentEncoderStream, segment_format
from vqtok.tokenizer.stream import AudioFormat, AudioStream, DecoderStream, EncoderStream

BLOCK_SECONDS = 4.0
"""Length of the blocks that the network computes, unless a tokenizer says otherwise."""


class AudioTokenizer(Tokenizer):
    """Turns sounds of any length, rate and number of channels into codes and back.

    A sound is resampled to the rate of the network; two channels become their mean and half their
    difference (mid, side), and every channel is coded alone. Beyond its ends is silence. The
    network sees blocks of one size with all the context that matters, one at a time and in one
    thread, so the codes of a sound are the same whether it comes whole or in pieces, in whatever
    batch, and with any number of threads. (Networks imported from elsewhere may treat the ends of a
    sound differently, or see it as a whole, in memory that grows with it. EnCodec's 48 kHz model
    codes both channels of stereo together, a second at a time, see
    :mod:`vqtok.tokenizer.segments`; mono becomes stereo for it, and the mean of both again.)

    Args:
        autoencoder, name, training, config: see :class:`Tokenizer`.
        block: frames that the network computes at a time. Default: about four seconds.
    """

    modality = "audio"

    def __init__(
        self,
        autoencoder: Autoencoder,
        *,
        name: str,
        training: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        block: int | None = None,
    ) -> None:
        encoder: Any = autoencoder.encoder
        decoder: Any = autoencoder.decoder
        self.sample_rate: int = encoder.sample_rate
        self.hop: int = encoder.hop
        if (decoder.sample_rate, decoder.hop) != (self.sample_rate, self.hop):
            raise ValueError(
                f"the encoder has {self.hop} samples a frame at {self.sample_rate} Hz, "
                f"the decoder {decoder.hop} at {decoder.sample_rate} Hz"
            )
        self.block = block or -(-int(BLOCK_SECONDS * self.sample_rate) // self.hop)
        if self.block < 1:
            raise ValueError(f"block must be at least 1 frame, not {self.block}")
        super().__init__(autoencoder, name=name, training=training, config=config)
        self._coder = BlockCoder(self.autoencoder, self.block)

    @property
    def options(self) -> dict[str, Any]:
        """See :attr:`Tokenizer.options`."""
        return {"block": self.block}

    @property
    def frame_rate(self) -> float:
        """Frames a second; a frame is one code of every codebook for every channel of codes."""
        return self._format(None, 1).frame_rate

    @property
    def together(self) -> bool:
        """Whether the channels of a sound share one channel of codes."""
        return self._ends == "segments"

    @property
    def _ends(self) -> str:
        encoder: Any = self.autoencoder.encoder
        ends: str = encoder.ends
        return ends

    def frames(self, samples: int, sample_rate: int | None = None) -> int:
        """Frames of codes of a sound with so many samples per channel (rate as for encode)."""
        return self._format(sample_rate, 1).frames(samples)

    def code_channels(self, channels: int) -> int:
        """Channels of codes of a sound with so many channels: as many, or 1 (``together``).

        Raises:
            DataError: the tokenizer does not take so many.
        """
        return self._format(None, channels).code_channels

    def encode(
        self,
        audio: Tensor,
        sample_rate: int | None = None,
        num_codebooks: int | None = None,
        rate_weight: float = 0.0,
    ) -> Tensor:
        """Code a batch of sounds.

        Args:
            audio: floating point [B, C, T], full scale 1, any C and T from 1.
            sample_rate: of the audio, in Hz (default: the tokenizer's).
            num_codebooks: use only the first q codebooks (default: all Q).
            rate_weight: 0 for the nearest codes, more for codes that take fewer bits; see
                :meth:`ImageTokenizer.encode`.

        Returns:
            int64 [B, t, C, q] on the device of the audio. With T' = T or, resampled,
            ceil(T * tokenizer rate / sample rate), t = ceil(T' / hop). Of stereo, channel 0 is
            mid and channel 1 side. Of a tokenizer that codes channels ``together``
            [B, t, 1, q], t = ``frames(T)``.

        Raises:
            ValueError: wrong shape or dtype, a value that is not finite, or ``num_codebooks`` or
                ``rate_weight`` out of range.
            UsageError: ``rate_weight`` where there is no prior, or for a quantizer whose codebooks
                do not add up.
            DataError: more channels than the tokenizer takes, or a sound too long for one that
                sees it as a whole.
        """
        if not isinstance(audio, Tensor) or audio.ndim != 3:
            shape = list(getattr(audio, "shape", ()))
            raise ValueError(f"audio must be a torch tensor [B, C, T], not {shape}")
        if not audio.shape[1] or not audio.shape[2]:
            raise ValueError(f"audio of shape {list(audio.shape)} holds nothing to encode")
        used = check_num_codebooks(num_codebooks, self.num_codebooks)
        form = self._format(sample_rate, int(audio.shape[1]))
        codes = torch.empty(
            (len(audio), form.frames(audio.shape[2]), form.code_channels, used), dtype=torch.int64
        )
        choice = self.choice(used, rate_weight)
        for sound, out in zip(audio, codes, strict=True):
            stream = self._streams[0](self._coder, form, used, choice)
            torch.cat([stream.push(sound), stream.finish()], out=out)
        return codes.to(audio.device)

    def decode(
        self,
        codes: Tensor,
        samples: int | None = None,
        sample_rate: int | None = None,
        channels: int | None = None,
    ) -> Tensor:
        """Rebuild a batch of sounds.

        Args:
            codes: integer [B, t, C, q], 1 <= q <= Q.
            samples: T of the sounds that were coded. Default: as many as t frames fill.
            sample_rate: in Hz, of what is wanted (default: the tokenizer's).
            channels: of the sounds that were coded. Default: those of the codes, or stereo if the
                tokenizer codes channels ``together``.

        Returns:
            float32 [B, C, T] on the device of the codes; a few values may lie beyond full scale.

        Raises:
            ValueError: a code is out of range, or ``samples`` doesn't belong to t frames or
                ``channels`` to the codes.
        """
        if not isinstance(codes, Tensor) or codes.ndim != 4 or not codes.shape[2]:
            shape = list(getattr(codes, "shape", ()))
            raise ValueError(f"codes must be a torch tensor [B, t, C, q], not {shape}")
        used = check_num_codebooks(codes.shape[3], self.num_codebooks)
        if channels is None:
            channels = 2 if self.together else int(codes.shape[2])
        form = self._format(sample_rate, channels)
        sounds = []
        for each in codes:
            stream = self._streams[1](self._coder, form, used)
            sounds.append(torch.cat([stream.push(each), stream.finish(samples)], dim=1))
        length = form.samples(int(codes.shape[1])) if samples is None else samples
        empty = torch.empty(0, channels, length)
        return (torch.stack(sounds) if sounds else empty).to(codes.device)

    def stream(
        self,
        sample_rate: int | None = None,
        channels: int = 1,
        num_codebooks: int | None = None,
        block: int | None = None,
        rate_weight: float = 0.0,
    ) -> AudioStream:
        """Code one sound in pieces as they come, in constant memory.

        Args:
            sample_rate: of the samples, in Hz (default: the tokenizer's).
            channels: C.
            num_codebooks: use only the first q codebooks (default: all Q).
            block: frames computed at a time, for a lower latency at more work. Default: the
                tokenizer's, which gives the same codes as :meth:`encode` bit for bit; with others
                a near tie between two codes may fall the other way.
            rate_weight: 0 for the nearest codes, more for codes that take fewer bits; see
                :meth:`ImageTokenizer.encode`.

        Returns:
            ``stream.encoder.push(samples)`` gives codes, ``stream.decoder.push(codes)`` samples;
            ``finish()`` of each gives the rest, and ``latency`` the delay in seconds.
        """
        used = check_num_codebooks(num_codebooks, self.num_codebooks)
        form = self._format(sample_rate, channels)
        coder = self._coder if block is None else BlockCoder(self.autoencoder, block)
        encoder, decoder = self._streams
        choice = self.choice(used, rate_weight)
        return AudioStream(encoder(coder, form, used, choice), decoder(coder, form, used))

    @property
    def _streams(self) -> tuple[type[EncoderStream], type[DecoderStream]]:
        return _STREAMS[self._ends]

    def _format(self, sample_rate: int | None, channels: int) -> AudioFormat:
        rate = self.sample_rate if sample_rate is None else sample_rate
        if self.together:
            return segment_format(self.autoencoder, rate, channels)
        return AudioFormat(rate, channels, self.sample_rate, self.hop)


_STREAMS: dict[str, tuple[type[EncoderStream], type[DecoderStream]]] = {
    "silence": (EncoderStream, DecoderStream),
    "cut": (CutEncoderStream, CutDecoderStream),
    "segments": (SegmentEncoderStream, SegmentDecoderStream),
}
