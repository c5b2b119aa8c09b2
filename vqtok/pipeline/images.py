"""Image files to samples of codes and back."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vqtok.errors import DataError, UsageError
from vqtok.media.images import MAX_PIXELS, DecodedImage, count_pixels, read_image, write_image
from vqtok.media.sources import Source
from vqtok.pipeline.naming import Namer, make_parents
from vqtok.pipeline.overlap import overlapped
from vqtok.pipeline.samples import readable, source_of
from vqtok.tokens import Sample, TokenReader

if TYPE_CHECKING:
    from vqtok.tokenizer import ImageTokenizer

MAX_PIXELS_AHEAD = 64_000_000
"""Most pixels that are decoded ahead of the model; a larger image is decoded ahead alone."""

FORMATS = ("png", "jpg", "webp")


def encode_images(
    sources: Iterable[Source],
    tokenizer: ImageTokenizer,
    num_codebooks: int,
    workers: int,
    rate_weight: float = 0.0,
) -> Generator[Sample | DataError, None, None]:
    """The samples of ``sources`` in order, or what is wrong with them.

    ``rate_weight``: see :meth:`ImageTokenizer.encode`. ``workers`` threads read and decode ahead
    while the model runs in the calling thread; memory holds a few images per worker, of 64 million
    pixels together.
    """
    sources = list(sources)
    with closing(overlapped(_read, sources, workers, count_pixels, MAX_PIXELS_AHEAD)) as images:
        for source, image in zip(sources, images, strict=True):
            if isinstance(image, DataError):
                yield image
            else:
                yield _encode(source, image, tokenizer, num_codebooks, rate_weight)


def decode_images(
    tokens: TokenReader,
    tokenizer: ImageTokenizer,
    out: Path,
    *,
    file_format: str,
    quality: int | None,
    num_codebooks: int | None,
    workers: int,
) -> Generator[int | str, None, None]:
    """Write every sample below ``out``; for each 0, or why it is lost.

    ``workers`` threads compress and write while the model runs in the calling thread.
    """

    def write(picture: _Picture | str) -> int | str:
        return picture if isinstance(picture, str) else picture.write(out, file_format, quality)

    pictures = _pictures(tokens, tokenizer, Namer(f".{file_format}"), num_codebooks)
    with closing(overlapped(write, pictures, workers)) as results:
        yield from results


def _read(source: Source) -> DecodedImage | DataError:
    try:
        return read_image(source)
    except DataError as error:
        return error


def _encode(
    source: Source,
    image: DecodedImage,
    tokenizer: ImageTokenizer,
    num_codebooks: int,
    rate_weight: float,
) -> Sample:
    import torch

    # One image at a time: images differ in size, and the codes must not depend on company.
    pixels = torch.from_numpy(image.pixels).permute(2, 0, 1)[None]
    codes = tokenizer.encode(pixels, num_codebooks=num_codebooks, rate_weight=rate_weight)[0]
    meta: dict[str, object] = {"source": source.uri, "size": list(image.pixels.shape[:2])}
    if image.notes:
        meta["notes"] = list(image.notes)
    return Sample(codes.cpu().numpy(), meta)


@dataclass(frozen=True)
class _Picture:
    """A decoded sample on its way to a file."""

    where: str
    name: str
    pixels: NDArray[np.uint8]

    def write(self, out: Path, file_format: str, quality: int | None) -> int | str:
        """Write it; returns why it cannot be, where that is the fault of this sample alone."""
        try:
            path = make_parents(out, self.name)
            write_image(path, self.pixels, file_format, quality)
        except (DataError, UsageError) as error:
            return f"{self.where}: {error}"
        return 0


def _pictures(
    tokens: TokenReader, tokenizer: ImageTokenizer, namer: Namer, num_codebooks: int | None
) -> Iterator[_Picture | str]:
    """Every sample decoded, or for a damaged one what is wrong with it."""
    for index, sample in readable(tokens, num_codebooks):
        if isinstance(sample, str):
            yield sample
            continue
        where = f"sample {index} ({sample.meta.get('source')})"
        try:
            yield _Picture(where, namer.name(source_of(sample, index)), _decode(sample, tokenizer))
        except DataError as error:
            yield f"{where}: {error}"


def _decode(sample: Sample, tokenizer: ImageTokenizer) -> NDArray[np.uint8]:
    import torch

    cells = math.prod(sample.codes.shape[:-1])
    if cells * tokenizer.downsample**2 > MAX_PIXELS:
        raise DataError(f"{cells} codes are an image of more than {MAX_PIXELS:,} pixels")
    try:
        codes = torch.from_numpy(sample.codes)[None]
        images = tokenizer.decode(codes, size=_size(sample.meta.get("size")))
    except ValueError as error:
        raise DataError(str(error)) from error
    pixels: NDArray[np.uint8] = images[0].permute(1, 2, 0).contiguous().cpu().numpy()
    return pixels


def _size(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 2 and all(type(side) is int for side in value):
        return value[0], value[1]
    raise DataError(f"its size is {value!r}, not [height, width]")
