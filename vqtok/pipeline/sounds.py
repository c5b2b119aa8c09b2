"""Sound files to samples of codes and back, any length in constant memory.

A file goes through in pieces: what grows with its length is its codes alone, two bytes each.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vqtok.errors import DataError, UsageError
from vqtok.media.audio import MAX_CHANNELS, MAX_RATE, MIN_RATE, AudioReader
from vqtok.media.audio_writer import AUDIO_FORMATS, AudioWriter
from vqtok.media.sources import Source
from vqtok.pipeline.naming import Namer, make_parents
from vqtok.pipeline.overlap import overlapped
from vqtok.pipeline.samples import readable, source_of
from vqtok.tokens import Sample, TokenReader

if TYPE_CHECKING:
    from vqtok.tokenizer import AudioTokenizer

FORMATS = tuple(AUDIO_FORMATS)

MAX_BYTES_AHEAD = 1 << 26
"""Most bytes of codes that wait to be decoded, unless one sample alone has more."""

PIECE_BLOCKS = 4
"""Blocks of codes that are decoded before their samples are written."""


def encode_sounds(
    sources: Iterable[Source],
    tokenizer: AudioTokenizer,
    num_codebooks: int,
    workers: int,
    rate_weight: float = 0.0,
) -> Generator[Sample | DataError, None, None]:
    """The samples of ``sources`` in order, or what is wrong with them.

    ``rate_weight``: see :meth:`AudioTokenizer.encode`. ``workers`` files are read and resampled at
    a time; the model runs in as many threads as torch has, whichever file a block is of.
    """
    stop = threading.Event()

    def encode(source: Source) -> Sample | DataError:
        try:
            return _encode(source, tokenizer, num_codebooks, rate_weight, stop)
        except DataError as error:
            return error

    with closing(overlapped(encode, sources, workers, stop=stop)) as samples:
        yield from samples


def decode_sounds(
    tokens: TokenReader,
    tokenizer: AudioTokenizer,
    out: Path,
    *,
    file_format: str,
    quality: int | None,
    num_codebooks: int | None,
    workers: int,
) -> Generator[int | str, None, None]:
    """Write every sample below ``out``; for each how many values were clipped, or why it is lost.

    ``workers`` files are written at a time; the model runs in as many threads as torch has.
    """
    stop = threading.Event()

    def write(recording: _Recording | str) -> int | str:
        if isinstance(recording, str):
            return recording
        try:
            return recording.write(out, tokenizer, file_format, quality, stop)
        except (DataError, UsageError) as error:
            return f"{recording.where}: {error}"

    namer = Namer(f".{file_format}", "audio")
    recordings = _recordings(tokens, tokenizer, namer, num_codebooks)
    with closing(
        overlapped(write, recordings, workers, _weight, MAX_BYTES_AHEAD, stop=stop)
    ) as results:
        yield from results


def _encode(
    source: Source,
    tokenizer: AudioTokenizer,
    num_codebooks: int,
    rate_weight: float,
    stop: threading.Event,
) -> Sample:
    import torch

    with AudioReader(source) as reader:
        stream = tokenizer.stream(
            reader.sample_rate, reader.channels, num_codebooks, rate_weight=rate_weight
        ).encoder
        samples, pieces = 0, []
        for block in reader.blocks():
            _go_on(stop)
            samples += block.shape[1]
            pieces.append(_narrow(stream.push(torch.from_numpy(block)), tokenizer))
        pieces.append(_narrow(stream.finish(), tokenizer))
    meta: dict[str, object] = {
        "source": source.uri,
        "sample_rate": reader.sample_rate,
        "channels": reader.channels,
        "samples": samples,
    }
    if reader.notes:
        meta["notes"] = list(reader.notes)
    return Sample(np.concatenate(pieces), meta)


def _narrow(codes: Any, tokenizer: AudioTokenizer) -> NDArray[Any]:
    """Codes [t, C, q] in the smallest type that holds every codebook."""
    narrow = np.min_scalar_type(max(tokenizer.codebook_sizes) - 1)
    found: NDArray[Any] = np.asarray(codes).astype(narrow)
    return found


@dataclass(frozen=True)
class _Recording:
    """A sample on its way to a file."""

    where: str
    name: str
    codes: NDArray[Any]
    sample_rate: int
    channels: int
    samples: int | None

    def write(
        self,
        out: Path,
        tokenizer: AudioTokenizer,
        file_format: str,
        quality: int | None,
        stop: threading.Event,
    ) -> int:
        """Decode it into its file; returns how many values were clipped.

        DataError or UsageError where the sample is at fault.
        """
        import torch

        frames, _, used = self.codes.shape
        stream = tokenizer.stream(self.sample_rate, self.channels, used).decoder
        path = make_parents(out, self.name)
        step = tokenizer.block * PIECE_BLOCKS
        with AudioWriter(
            *(path, self.sample_rate, self.channels, file_format),
            quality=quality,
            length=self.samples or 0,
        ) as writer:
            for start in range(0, frames, step):
                _go_on(stop)
                piece = self.codes[start : start + step].astype(np.int64)
                writer.write(stream.push(torch.from_numpy(piece)).numpy())
            try:
                writer.write(stream.finish(self.samples).numpy())
            except ValueError as error:
                raise DataError(str(error)) from error
        return writer.clipped


def _weight(recording: _Recording | str) -> int:
    return 0 if isinstance(recording, str) else recording.codes.nbytes


def _recordings(
    tokens: TokenReader, tokenizer: AudioTokenizer, namer: Namer, num_codebooks: int | None
) -> Iterator[_Recording | str]:
    """Every sample that can be read, or what is wrong with it."""
    for index, sample in readable(tokens, num_codebooks):
        if isinstance(sample, str):
            yield sample
            continue
        where = f"sample {index} ({sample.meta.get('source')})"
        try:
            facts = _check_meta(sample, tokenizer)
        except DataError as error:
            yield f"{where}: {error}"
        else:
            name = namer.name(source_of(sample, index))
            yield _Recording(where, name, _narrow(sample.codes, tokenizer), *facts)


def _check_meta(sample: Sample, tokenizer: AudioTokenizer) -> tuple[int, int, int | None]:
    """Sample rate, channels and number of samples; DataError when they make no sense."""
    rate = sample.meta.get("sample_rate", tokenizer.sample_rate)
    samples = sample.meta.get("samples")
    coded = sample.codes.shape[1]
    channels = sample.meta.get("channels", 2 if tokenizer.together else coded)
    if type(rate) is not int or not MIN_RATE <= rate <= MAX_RATE:
        raise DataError(f"its sample rate is {rate!r}, not {MIN_RATE:,} to {MAX_RATE:,} Hz")
    if type(channels) is not int or not 1 <= channels <= MAX_CHANNELS:
        raise DataError(f"it has {channels!r} channels, not 1 to {MAX_CHANNELS}")
    if coded != tokenizer.code_channels(channels):
        raise DataError(
            f"it has {coded} channels of codes, not {tokenizer.code_channels(channels)}"
        )
    if samples is not None and type(samples) is not int:
        raise DataError(f"its number of samples is {samples!r}")
    return rate, channels, samples


def _go_on(stop: threading.Event) -> None:
    if stop.is_set():
        raise DataError("interrupted")
