"""Sound files in, piece by piece: whatever libsndfile reads, and never a silently wrong one.

Samples are float32 with full scale 1, loudness as in the file. A file that cannot be decoded whole
is refused. What libsndfile does not know is tried with PyAV (FFmpeg), if that is installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

import numpy as np

from vqtok.errors import DataError
from vqtok.media.quiet import quiet_mpg123
from vqtok.media.resampling import Samples, resample
from vqtok.media.sources import Openable, name_of, opened

if TYPE_CHECKING:
    from types import TracebackType

    from soundfile import LibsndfileError, SoundFile
    from typing_extensions import Self

MIN_RATE, MAX_RATE = 1_000, 768_000
"""Sample rates in Hz outside these are refused."""

MAX_CHANNELS = 64
"""Files with more channels than this are refused."""

MAX_AMPLITUDE = 1000.0
"""Samples beyond this (full scale is 1) are no sound but integers, or garbage."""

BLOCK_VALUES = 1 << 19
"""Values (samples times channels) of a piece: 2 MiB."""

# libsndfile's notes on chunks that claim another size than they have, and what streams claim.
_CLAIMS = re.compile(
    r"^\s*(data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)", re.M
)
_UNKNOWN_SIZES = (0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_NOT_RECOGNISED = 1
_OGG_PAGE = 65_307  # bytes of the largest


class Decoder(Protocol):
    """What reads a container: libsndfile here, PyAV in ``containers.py``."""

    sample_rate: int
    channels: int
    notes: list[str]

    def blocks(self) -> Iterator[Samples]:
        """float32 [C, n], n >= 1, until the end; DataError when it is cut short or damaged."""

    def close(self) -> None: ...


class AudioReader:
    """An open sound file; use it in a ``with`` block.

    Args:
        source: a path, the bytes of a file, or a :class:`~vqtok.media.sources.Source`.

    Attributes:
        sample_rate: in Hz.
        channels: C.
        notes: what the file's own structure says about how whole it is; empty for an ordinary
            file, complete when all blocks were read.

    Raises:
        DataError: the file is missing, unreadable, empty, no sound, damaged, or has an absurd
            sample rate or number of channels.
    """

    def __init__(self, source: Openable) -> None:
        self.name = name_of(source)
        with self._refusing(), ExitStack() as stack:
            stream = stack.enter_context(opened(source))
            if not stream.read(1):
                raise DataError("the file is empty")
            stream.seek(0)
            self._decoder = _open_decoder(stream)
            stack.callback(self._decoder.close)
            self.sample_rate = self._decoder.sample_rate
            self.channels = self._decoder.channels
            self.notes = self._decoder.notes
            if not MIN_RATE <= self.sample_rate <= MAX_RATE:
                raise DataError(f"its sample rate is {self.sample_rate:,} Hz")
            if not 1 <= self.channels <= MAX_CHANNELS:
                raise DataError(f"{self.channels} channels, more than {MAX_CHANNELS}")
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def blocks(self) -> Iterator[Samples]:
        """The samples from the beginning, piece by piece: float32 [C, n], n >= 1.

        Raises:
            DataError: there are none, or the rest cannot be decoded, or a sample is not finite or
                far beyond full scale.
        """
        position = 0
        with self._refusing():
            for block in self._decoder.blocks():
                self._check(block, position)
                position += block.shape[1]
                yield block
            if not position:
                raise DataError("it holds no samples: it is cut short or empty")

    def _check(self, block: Samples, position: int) -> None:
        peaks = np.abs(block).max(axis=0)
        wrong = np.flatnonzero(~(peaks <= MAX_AMPLITUDE))
        if len(wrong):
            at = position + int(wrong[0])
            where = f"sample {at:,} ({at / self.sample_rate:.3f} s)"
            if not np.isfinite(peaks[wrong[0]]):
                raise DataError(f"{where} is not a finite number")
            raise DataError(f"{where} is {peaks[wrong[0]]:,.0f} times full scale: not a sound")

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Turn whatever a decoder raises on a hostile file into a DataError that names it."""
        try:
            yield
        except DataError as error:
            message = str(error)
            if message.startswith(self.name):
                raise
            raise DataError(f"{self.name}: {message}") from error
        except OSError as error:
            reason = f"cannot be read: {error.strerror or error}"
            raise DataError(f"{self.name}: {reason}") from error
        except (RuntimeError, ValueError, TypeError, MemoryError) as error:
            detail = str(error) or type(error).__name__
            raise DataError(f"{self.name}: the sound is truncated or damaged: {detail}") from error


@dataclass(frozen=True)
class DecodedAudio:
    """A whole sound.

    Attributes:
        samples: float32 [C, n], full scale 1.
        sample_rate: in Hz.
        notes: as of :class:`AudioReader`.
    """

    samples: Samples
    sample_rate: int
    notes: tuple[str, ...] = ()


def read_audio(source: Openable, sample_rate: int | None = None) -> DecodedAudio:
    """Decode a whole sound file into memory.

    Args:
        source: a path, the bytes of a file, or a :class:`~vqtok.media.sources.Source`.
        sample_rate: in Hz, to resample to. Default: as it is.

    Raises:
        DataError: as :class:`AudioReader` and its blocks do.
    """
    with AudioReader(source) as reader:
        samples = np.concatenate(list(reader.blocks()), axis=1)
        rate = reader.sample_rate
        if sample_rate is not None:
            samples, rate = resample(samples, rate, sample_rate), sample_rate
        return DecodedAudio(samples, rate, tuple(reader.notes))


class _Callbacks:
    """A stream for libsndfile, which calls back from C, where no exception can pass."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.tell = stream.tell

    def read(self, count: int) -> bytes:
        with suppress(OSError, ValueError):
            return self._stream.read(count)
        return b""

    def seek(self, offset: int, whence: int) -> None:
        with suppress(OSError, ValueError):
            self._stream.seek(offset, whence)

    def write(self, data: object) -> int:
        return 0


class _SoundFileDecoder:
    """A file in the hands of libsndfile."""

    def __init__(self, file: SoundFile, ends: bool) -> None:
        self._file = file
        self.sample_rate: int = file.samplerate
        self.channels: int = file.channels
        self.notes: list[str] = []
        for name, claimed, found in _CLAIMS.findall(file.extra_info):
            # The outermost size of a wav file is often wrong, and nothing depends on it.
            if int(claimed) in _UNKNOWN_SIZES:
                self.notes.append("the header does not say how long it is: all there is was read")
            elif int(claimed) > int(found):
                raise DataError(f"cut short: {name} should be {claimed} bytes, {found} are there")
        if not ends:
            self.notes.append("the stream has no end mark: the file may have been cut short")

    def blocks(self) -> Iterator[Samples]:
        count, size = 0, max(1, BLOCK_VALUES // self.channels)
        while len(frames := self._read(size)):
            count += len(frames)
            yield frames.T
        announced = self._file.frames
        if count < announced:
            message = f"{count:,} of the {announced:,} samples that it announces can be decoded"
            # An mp3 file counts itself in an optional frame of its own, and not always rightly.
            tolerated = min(self.sample_rate, announced // 20)
            if self._file.format != "MP3" or announced - count > tolerated:
                raise DataError(f"cut short or damaged: {message}")
            self.notes.append(message)

    def close(self) -> None:
        self._file.close()

    def _read(self, count: int) -> Samples:
        with _quiet(self._file.format == "MP3"):
            frames: Samples = self._file.read(count, dtype="float32", always_2d=True)
        return frames


def _open_decoder(stream: BinaryIO) -> Decoder:
    import soundfile

    ends = _has_end(stream)
    head = stream.read(3)
    stream.seek(0)
    mpeg = head == b"ID3" or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")
    try:
        with _quiet(mpeg):
            file = soundfile.SoundFile(_Callbacks(stream))
        return _SoundFileDecoder(file, ends)
    except soundfile.LibsndfileError as error:
        if error.code != _NOT_RECOGNISED:
            raise DataError(f"truncated or damaged: {_reason(error)}") from error
    from vqtok.media.containers import open_container

    return open_container(stream)


def _quiet(mpeg: bool) -> AbstractContextManager[None]:
    return quiet_mpg123() if mpeg else nullcontext()


def _has_end(stream: BinaryIO) -> bool:
    """Whether the last page of an Ogg file says that it is; True for other files."""
    ogg = stream.read(4) == b"OggS"
    size = stream.seek(0, 2)
    stream.seek(max(0, size - _OGG_PAGE))
    tail = stream.read(_OGG_PAGE) if ogg else b""
    stream.seek(0)
    last = tail.rfind(b"OggS")
    return not ogg or (0 <= last < len(tail) - 5 and bool(tail[last + 5] & 4))


def _reason(error: LibsndfileError) -> str:
    return str(error.error_string).removeprefix("Error : ").rstrip(".")
