"""Sound in pieces for networks whose layers end where the sound ends.

Published models pad the input of every layer, so a frame near an end depends on where the end is.
Blocks inside a sound get all the context that matters and come out as in one piece; the first has
nothing before it and the last nothing behind. A network that sees everything at once (attention, a
recurrent layer, statistics over time) waits for the end.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vqtok.errors import DataError
from vqtok.tokenizer.blocks import WHOLE, BlockCoder
from vqtok.tokenizer.choice import Choice
from vqtok.tokenizer.stream import (
    AudioFormat,
    DecoderStream,
    EncoderStream,
    from_mid_side,
    to_mid_side,
)

MAX_WHOLE = 1 << 23
"""Samples of a sound that is coded in one piece: about six minutes at 24 kHz. A layer of 32
channels at full rate is then 1 GB."""


class CutEncoderStream(EncoderStream):
    """Samples to codes; see :class:`EncoderStream`."""

    def __init__(
        self,
        coder: BlockCoder,
        audio: AudioFormat,
        num_codebooks: int,
        choice: Choice | None = None,
    ) -> None:
        super().__init__(coder, audio, num_codebooks, choice)
        self._waiting = torch.zeros(audio.channels, 0)
        self._start = 0  # the frame that begins there
        if coder.block == WHOLE:
            self.latency = math.inf

    def finish(self) -> Tensor:
        """See :meth:`EncoderStream.finish`."""
        self._close()
        total = self._audio.frames(self._samples)
        pieces = [self._take(self._resampler.finish())]
        if self._coder.block != WHOLE:  # as long as whole frames; a network for all pads itself
            missing = (total - self._start) * self._coder.hop - self._waiting.shape[1]
            silence = torch.zeros(self._audio.channels, max(missing, 0))
            self._waiting = torch.cat([self._waiting, silence], dim=1)
        while self._frames < total:
            pieces.append(self._code(total))
        return torch.cat(pieces)

    def _take(self, samples: np.ndarray) -> Tensor:
        """Code every block that is complete, with all that matters behind it."""
        coder = self._coder
        mixed = to_mid_side(torch.from_numpy(np.ascontiguousarray(samples)))
        self._waiting = torch.cat([self._waiting, mixed], dim=1)
        _check_length(coder, self._waiting.shape[1])
        pieces = [torch.empty(0, self._audio.channels, self._num_codebooks, dtype=torch.int64)]
        there = self._start * coder.hop + self._waiting.shape[1]
        while (end := self._frames + coder.block + coder.encoder_margin[1]) * coder.hop <= there:
            pieces.append(self._code(end))
        return torch.cat(pieces)

    def _code(self, end: int) -> Tensor:
        """The next block, of a sound that is known up to the frame ``end``."""
        coder = self._coder
        before, after = coder.encoder_margin
        start = max(self._frames - before, 0)
        stop = min(self._frames + coder.block, end)
        seen = min(stop + after, end)
        first, last = ((frame - self._start) * coder.hop for frame in (start, seen))
        kept = slice(self._frames - start, stop - start)
        windows = list(self._waiting[:, first:last])
        (coded,) = self._code_windows(windows, kept)
        self._frames = stop
        self._start, dropped = max(stop - before, 0), self._start
        self._waiting = self._waiting[:, (self._start - dropped) * coder.hop :].clone()
        return coded


class CutDecoderStream(DecoderStream):
    """Codes to samples; see :class:`DecoderStream`."""

    def __init__(self, coder: BlockCoder, audio: AudioFormat, num_codebooks: int) -> None:
        super().__init__(coder, audio, num_codebooks)
        self._started = True  # nothing comes before the first code
        self._start = 0
        if coder.block == WHOLE:
            self.latency = math.inf

    def _take(self, codes: Tensor) -> np.ndarray:
        coder = self._coder
        self._waiting = torch.cat([self._waiting, codes])
        _check_length(coder, len(self._waiting) * coder.hop)
        pieces = [np.zeros((self._audio.channels, 0), np.float32)]
        there = self._start + len(self._waiting)
        while (end := self._frames + coder.block + coder.decoder_margin[1]) <= there:
            pieces.append(self._decode(end))
        return np.concatenate(pieces, axis=1)

    def _take_rest(self, missing: int) -> np.ndarray:
        total = self._frames + missing
        pieces = []
        while self._frames < total:
            pieces.append(self._decode(total))
        return np.concatenate(pieces, axis=1)

    def _decode(self, end: int) -> np.ndarray:
        """The next block, of codes that are known up to the frame ``end``."""
        coder = self._coder
        before, after = coder.decoder_margin
        start = max(self._frames - before, 0)
        stop = min(self._frames + coder.block, end)
        seen = min(stop + after, end)
        window = self._waiting[start - self._start : seen - self._start]
        kept = slice(self._frames - start, stop - start)
        decoded = coder.decode(list(window.transpose(0, 1)), kept)
        self._frames = stop
        self._start, dropped = max(stop - before, 0), self._start
        self._waiting = self._waiting[self._start - dropped :].clone()
        return from_mid_side(torch.stack(decoded)).numpy()


def _check_length(coder: BlockCoder, samples: int) -> None:
    if coder.block == WHOLE and samples > MAX_WHOLE:
        raise DataError(
            f"the sound is longer than {MAX_WHOLE:,} samples at the network's rate; this tokenizer "
            "sees a sound as a whole: cut it into pieces"
        )
