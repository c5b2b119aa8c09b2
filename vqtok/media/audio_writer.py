"""Sound files out, piece by piece; a path never holds half a file."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vqtok.errors import UsageError, VqtokError
from vqtok.files import atomic_write
from vqtok.media.resampling import Samples

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

AUDIO_FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
"""Formats that are written, by file extension: libsndfile's names of them."""

_MAX_WAV_BYTES = 0xFFFF_0000
_PIECE = 1 << 14  # samples a call: libsndfile's Vorbis encoder overflows its stack on millions


class AudioWriter:
    """A sound file in the making; it takes its name when its ``with`` block ends without error.

    ``wav`` and ``flac`` hold 16 bits a sample, rounded to the nearest and clipped; ``ogg``
    (Vorbis), ``opus`` and ``mp3`` are lossy. A ``wav`` file of more than 4 GB is written as RF64.

    Args:
        path: the file; its folder must exist. An existing file is replaced.
        sample_rate: in Hz.
        channels: C.
        format: one of :data:`AUDIO_FORMATS`, whatever the path ends in.
        quality: 1 to 100 for ``ogg``, ``opus`` and ``mp3``. Default: libsndfile's own.
        length: samples per channel, if known, to tell whether the file will be long.

    Attributes:
        clipped: values (samples times channels) beyond full scale that were written so far.

    Raises:
        UsageError: an unknown format, or a rate or number of channels that it cannot hold.
        VqtokError: the file cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sample_rate: int,
        channels: int,
        format: str = "wav",  # noqa: A002
        *,
        quality: int | None = None,
        length: int = 0,
    ) -> None:
        import soundfile

        if format not in AUDIO_FORMATS:
            raise UsageError(f"unknown audio format {format!r}: choose {', '.join(AUDIO_FORMATS)}")
        container, subtype = AUDIO_FORMATS[format]
        if format == "wav" and length * channels * 2 > _MAX_WAV_BYTES:
            container = "RF64"
        options = {}
        if quality is not None:
            if subtype == "PCM_16":
                raise UsageError(f"{format} is lossless and takes no quality")
            if not 1 <= quality <= 100:
                raise UsageError(f"quality must be 1 to 100, not {quality}")
            options = {"compression_level": 1 - quality / 100}
        self.path = Path(path)
        self.clipped = 0
        self._exact = subtype == "PCM_16"
        self._stack = ExitStack()
        try:
            with ExitStack() as stack:
                stream = stack.enter_context(atomic_write(self.path, durable=False))
                self._file = soundfile.SoundFile(
                    stream.fileno(),
                    "w",
                    sample_rate,
                    channels,
                    subtype,
                    format=container,
                    closefd=False,
                    **options,
                )
                self._stack = stack.pop_all()
        except soundfile.LibsndfileError as error:
            raise UsageError(
                f"{self.path}: {format} cannot hold {channels} channels at {sample_rate:,} Hz; "
                "choose another format, such as wav"
            ) from error
        except OSError as error:
            raise self._failure(error) from error

    def write(self, samples: Samples) -> None:
        """Append float32 [C, n]; full scale is 1, what is beyond is clipped."""
        frames = np.asarray(samples, np.float32).T
        self.clipped += int(np.count_nonzero(np.abs(frames) > 1))
        if self._exact:
            data = np.rint(frames * 32768).clip(-32768, 32767).astype(np.int16)
        else:
            data = frames.clip(-1, 1)
        data = np.ascontiguousarray(data)
        try:
            for start in range(0, len(data), _PIECE):
                self._file.write(data[start : start + _PIECE])
        except (OSError, RuntimeError) as error:
            raise self._failure(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._file.close()
        finally:
            try:
                self._stack.__exit__(kind, error, traceback)
            except OSError as failed:
                raise self._failure(failed) from failed

    def _failure(self, error: Exception) -> VqtokError:
        reason = getattr(error, "strerror", None) or str(error)
        if reason == "System error.":
            reason = "the system refuses; is the disk full?"
        return VqtokError(f"{self.path}: cannot write the sound: {reason}")


def write_audio(
    path: str | os.PathLike[str],
    samples: Samples,
    sample_rate: int,
    format: str = "wav",  # noqa: A002
    quality: int | None = None,
) -> None:
    """Write a whole sound, float32 [C, n]; arguments and errors as of :class:`AudioWriter`."""
    samples = np.asarray(samples)
    if samples.ndim != 2 or samples.dtype != np.float32 or not samples.size:
        raise ValueError(f"samples must be float32 [C, n], got {samples.dtype} {samples.shape}")
    with AudioWriter(
        path, sample_rate, len(samples), format, quality=quality, length=samples.shape[1]
    ) as writer:
        writer.write(samples)
