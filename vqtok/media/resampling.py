"""Changing a sample rate in constant memory, with exact lengths (soxr)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


def resampled_length(samples: int, source_rate: int, target_rate: int) -> int:
    """How many samples :class:`Resampler` makes of ``samples``: rounded up, so that none is lost.

    >>> resampled_length(44100, 44100, 24000), resampled_length(1, 48000, 8000)
    (24000, 1)
    """
    return -(-samples * target_rate // source_rate)


class Resampler:
    """Resamples pieces of a sound as they come; how it was cut into pieces makes no difference.

    Beyond both ends the signal is silence. With equal rates the samples pass unchanged.

    Args:
        source_rate: in Hz, of what is pushed.
        target_rate: in Hz, of what comes out.
        channels: C.
    """

    def __init__(self, source_rate: int, target_rate: int, channels: int) -> None:
        if source_rate < 1 or target_rate < 1:
            raise ValueError(f"sample rates must be positive: {source_rate}, {target_rate}")
        self.source_rate = source_rate
        self.target_rate = target_rate
        self.channels = channels
        self._taken = 0
        self._given = 0
        self._stream = None
        if source_rate != target_rate:
            import soxr

            self._stream = soxr.ResampleStream(source_rate, target_rate, channels, dtype="float32")

    def push(self, samples: Samples) -> Samples:
        """float32 [C, n] -> the samples that are certain by now, [C, m], m may be 0."""
        self._taken += samples.shape[1]
        return self._take(samples, last=False)

    def finish(self, length: int | None = None) -> Samples:
        """The rest, [C, m]; the resampler is spent.

        Args:
            length: of all that came out, from the beginning; the default is
                :func:`resampled_length` of all that was pushed. More is silence.
        """
        if length is None:
            length = resampled_length(self._taken, self.source_rate, self.target_rate)
        # Silence until there is enough: soxr rounds its own length to the nearest.
        missing = resampled_length(length, self.target_rate, self.source_rate) - self._taken + 1
        silence = np.zeros((self.channels, max(missing, 1)), np.float32)
        left = length - self._given
        return self._take(silence, last=True)[:, : max(left, 0)]

    def _take(self, samples: Samples, last: bool) -> Samples:
        if self._stream is not None:
            frames = np.ascontiguousarray(samples.T, dtype=np.float32)
            samples = self._stream.resample_chunk(frames, last=last).reshape(-1, self.channels).T
        self._given += samples.shape[1]
        return samples


def resample(samples: Samples, source_rate: int, target_rate: int) -> Samples:
    """A whole sound, float32 [C, n], at another rate: [C, resampled_length(n)]."""
    resampler = Resampler(source_rate, target_rate, len(samples))
    return np.concatenate([resampler.push(samples), resampler.finish()], axis=1)
