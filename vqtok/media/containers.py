"""Sound in m4a, mp4, mkv, webm and other container files, through PyAV (FFmpeg) if installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from vqtok.errors import DataError
from vqtok.media.resampling import Samples

if TYPE_CHECKING:
    from av.container import InputContainer

DEMUXERS = "mov,matroska,avi,asf,aac,flv,mpegts,mpeg,wv,ape,tta,ac3,eac3,dts,amr"
"""FFmpeg's formats that may be opened: none of these reads other files or the network."""


class _ContainerDecoder:
    """The first audio stream of a container."""

    def __init__(self, container: InputContainer) -> None:
        import av

        self._container = container
        if not container.streams.audio:
            raise DataError("there is no sound in it")
        self._stream = stream = container.streams.audio[0]
        self.notes: list[str] = []
        if len(container.streams.audio) > 1:
            self.notes.append("the first of several audio streams was read")
        self.sample_rate = int(stream.rate or 0)
        self.channels = int(stream.channels)
        self._planar = av.AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)
        # The edit list of an mp4 file tells the exact length; the last frame overshoots it.
        exact = stream.time_base is not None and stream.time_base * self.sample_rate == 1
        self._length = stream.duration if exact else None

    def blocks(self) -> Iterator[Samples]:
        count = 0
        for block in self._frames():
            if self._length is not None:
                block = block[:, : max(0, self._length - count)]
            count += block.shape[1]
            if block.shape[1]:
                yield block
        if self._length is not None and count < self._length:
            raise DataError(
                f"cut short or damaged: {count:,} of {self._length:,} samples are there"
            )

    def _frames(self) -> Iterator[Samples]:
        for frame in self._container.decode(self._stream):
            for planar in self._planar.resample(frame):
                yield np.asarray(planar.to_ndarray(), dtype=np.float32)
        for planar in self._planar.resample(None):
            yield np.asarray(planar.to_ndarray(), dtype=np.float32)

    def close(self) -> None:
        self._container.close()


def open_container(stream: BinaryIO) -> _ContainerDecoder:
    """Open a container file; DataError when it is none, or PyAV is not installed."""
    try:
        import av
    except ImportError:
        raise DataError(
            "no sound file that is read (wav, flac, ogg, opus, mp3, aiff ...); "
            "pip install 'vqtok[av]' reads m4a and video files too"
        ) from None
    stream.seek(0)
    try:
        # No file but this one: some formats are lists of others.
        options = {"format_whitelist": DEMUXERS, "protocol_whitelist": ""}
        container = av.open(stream, "r", options=options)
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"no sound file that is read ({reason})") from error
    return _ContainerDecoder(container)
