"""Decoding a token dataset into files."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vqtok.errors import UsageError
from vqtok.pipeline import images, sounds
from vqtok.tokens import TokenReader

if TYPE_CHECKING:
    from vqtok.tokenizer import Tokenizer

Decode = Callable[..., Generator[int | str, None, None]]

DECODERS: dict[str, tuple[Decode, tuple[str, ...]]] = {
    "image": (images.decode_images, images.FORMATS),
    "audio": (sounds.decode_sounds, sounds.FORMATS),
}
"""By modality: what writes the samples, and the file formats it knows, the default first."""


@dataclass(frozen=True)
class DecodeReport:
    """What came of a run.

    ``decoded``: number of files written. ``failures``: one message per sample that is lost.
    ``clipped``: values beyond full scale, which no file of sound holds, for each of the sounds that
    have any.
    """

    decoded: int
    failures: tuple[str, ...]
    clipped: tuple[int, ...] = ()


def decode_dataset(
    tokens: TokenReader,
    tokenizer: Tokenizer,
    out: Path | str,
    *,
    file_format: str | None = None,
    quality: int | None = None,
    num_codebooks: int | None = None,
    workers: int = 2,
    overwrite: bool = False,
    progress: Callable[[int], object] | None = None,
) -> DecodeReport:
    """Write every sample of ``tokens`` as a file below the folder ``out``.

    Files are named after the samples' sources, see :class:`~vqtok.pipeline.naming.Namer`; whatever
    those say, nothing is written outside ``out``. ``file_format``: one that :data:`DECODERS` lists
    for the modality (None: the first). ``num_codebooks``: decode from the first q only. ``workers``
    threads write files while the model runs. A sample that is damaged, or that the format cannot
    hold, costs itself alone and is reported.

    Raises UsageError for another tokenizer than the one that made the codes, for another format,
    and for an ``out`` that is not empty unless ``overwrite``; VqtokError or OSError when a file
    cannot be written.
    """
    out = Path(out)
    check_tokenizer(tokens, tokenizer)
    if num_codebooks is not None and not 1 <= num_codebooks <= tokens.header.num_codebooks:
        raise UsageError(
            f"num_codebooks is {num_codebooks}, the tokens have {tokens.header.num_codebooks}"
        )
    modality = tokens.header.modality
    decode, formats = DECODERS[modality]
    file_format = formats[0] if file_format is None else file_format
    if file_format not in formats:
        raise UsageError(f"no {modality} format {file_format!r}: choose {', '.join(formats)}")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; the output must be a folder")
    if not overwrite and out.exists() and any(out.iterdir()):
        raise UsageError(
            f"{out} is not empty; choose a new folder, or --overwrite to write into it"
        )
    out.mkdir(parents=True, exist_ok=True)
    results = decode(
        tokens,
        tokenizer,
        out,
        file_format=file_format,
        quality=quality,
        num_codebooks=num_codebooks,
        workers=workers,
    )
    failures, clipped = [], []
    with closing(results):
        for result in results:
            if isinstance(result, str):
                failures.append(result)
            elif result:
                clipped.append(result)
            if progress is not None:
                progress(1)
    return DecodeReport(len(tokens) - len(failures), tuple(failures), tuple(clipped))


def check_tokenizer(tokens: TokenReader, tokenizer: Tokenizer) -> None:
    """UsageError unless ``tokenizer`` is the one that made ``tokens``."""
    header = tokens.header
    if header.tokenizer != tokenizer.fingerprint:
        same = " (another one of that name)" if header.tokenizer_name == tokenizer.name else ""
        raise UsageError(
            f"{tokens.path} was made by tokenizer {header.tokenizer_name!r} (fingerprint "
            f"{header.tokenizer[:12]}), not by {tokenizer.name!r} ({tokenizer.fingerprint[:12]})"
            f"{same}: name the folder of the right one with --tokenizer"
        )
