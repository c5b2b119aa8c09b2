"""Decoding a token dataset into image files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vqtok.errors import DataError, UsageError
from vqtok.media.images import MAX_PIXELS, write_image
from vqtok.pipeline.naming import Namer, make_parents
from vqtok.pipeline.overlap import overlapped
from vqtok.tokens import Sample, TokenReader

if TYPE_CHECKING:
    from vqtok.tokenizer import ImageTokenizer


@dataclass(frozen=True)
class DecodeReport:
    """``decoded``: number of files written. ``failures``: one message per sample that is lost."""

    decoded: int
    failures: tuple[str, ...]


def decode_dataset(
    tokens: TokenReader,
    tokenizer: ImageTokenizer,
    out: Path | str,
    *,
    image_format: str = "png",
    quality: int | None = None,
    num_codebooks: int | None = None,
    workers: int = 2,
    overwrite: bool = False,
    progress: Callable[[int], object] | None = None,
) -> DecodeReport:
    """Write every sample of ``tokens`` as an image below the folder ``out``.

    Files are named after the samples' sources, see :class:`~vqtok.pipeline.naming.Namer`; whatever
    those say, nothing is written outside ``out``. ``num_codebooks``: decode from the first q only.
    ``workers`` threads compress and write while the model runs. A sample that is damaged, or too
    large for ``image_format``, costs itself alone and is reported.

    Raises UsageError for another tokenizer than the one that made the codes, and for an ``out``
    that is not empty unless ``overwrite``; VqtokError or OSError when a file cannot be written.
    """
    out = Path(out)
    check_tokenizer(tokens, tokenizer)
    if num_codebooks is not None and not 1 <= num_codebooks <= tokens.header.num_codebooks:
        raise UsageError(
            f"num_codebooks is {num_codebooks}, the tokens have {tokens.header.num_codebooks}"
        )
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; the output must be a folder")
    if not overwrite and out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty; choose a new folder, or ask to overwrite")
    out.mkdir(parents=True, exist_ok=True)

    def write(picture: _Picture | str) -> str | None:
        return picture if isinstance(picture, str) else picture.write(out, image_format, quality)

    pictures = _pictures(tokens, tokenizer, Namer(f".{image_format}"), num_codebooks)
    failures = []
    with closing(overlapped(write, pictures, workers)) as results:
        for failure in results:
            if failure is not None:
                failures.append(failure)
            if progress is not None:
                progress(1)
    return DecodeReport(len(tokens) - len(failures), tuple(failures))


def check_tokenizer(tokens: TokenReader, tokenizer: ImageTokenizer) -> None:
    """UsageError unless ``tokenizer`` is the one that made ``tokens``."""
    header = tokens.header
    if header.tokenizer != tokenizer.fingerprint:
        same = " (another one of that name)" if header.tokenizer_name == tokenizer.name else ""
        raise UsageError(
            f"{tokens.path} was made by tokenizer {header.tokenizer_name!r} (fingerprint "
            f"{header.tokenizer[:12]}), not by {tokenizer.name!r} ({tokenizer.fingerprint[:12]})"
            f"{same}: name the folder of the right one with --tokenizer"
        )


@dataclass(frozen=True)
class _Picture:
    """A decoded sample on its way to a file."""

    where: str
    name: str
    pixels: NDArray[np.uint8]

    def write(self, out: Path, image_format: str, quality: int | None) -> str | None:
        """Write it; returns why it cannot be, where that is the fault of this sample alone."""
        try:
            path = make_parents(out, self.name)
            write_image(path, self.pixels, image_format, quality)
        except (DataError, UsageError) as error:
            return f"{self.where}: {error}"
        return None


def _pictures(
    tokens: TokenReader, tokenizer: ImageTokenizer, namer: Namer, num_codebooks: int | None
) -> Iterator[_Picture | str]:
    """Every sample decoded, or for a damaged one what is wrong with it."""
    for index in range(len(tokens)):
        try:
            sample = tokens.read(index, num_codebooks)
        except DataError as error:
            yield str(error)  # names the shard, and the sample unless the whole shard is lost
            continue
        where = f"sample {index} ({sample.meta.get('source')})"
        try:
            yield _Picture(where, namer.name(_source(sample, index)), _decode(sample, tokenizer))
        except DataError as error:
            yield f"{where}: {error}"


def _source(sample: Sample, index: int) -> str:
    source = sample.meta.get("source")
    return source if isinstance(source, str) else f"sample-{index:06d}"


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
