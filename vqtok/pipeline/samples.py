"""What decoding to files of every modality needs of a token dataset."""

from __future__ import annotations

from collections.abc import Iterator

from vqtok.errors import DataError
from vqtok.tokens import Sample, TokenReader


def readable(tokens: TokenReader, num_codebooks: int | None) -> Iterator[tuple[int, Sample | str]]:
    """Every sample with its index, or what is wrong with it."""
    for index in range(len(tokens)):
        yield index, _read(tokens, index, num_codebooks)


def _read(tokens: TokenReader, index: int, num_codebooks: int | None) -> Sample | str:
    try:
        return tokens.read(index, num_codebooks)
    except DataError as error:
        return str(error)  # it names the shard, and the sample unless the whole shard is lost


def source_of(sample: Sample, index: int) -> str:
    """Where a sample came from, by its metadata; a name made up where they do not say."""
    source = sample.meta.get("source")
    return source if isinstance(source, str) else f"sample-{index:06d}"
