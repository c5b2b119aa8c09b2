"""Layouts by name, in a span of the vocabulary that they fill without gaps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vqtok.tokens.sequences.codebook import CodebookTokens
from vqtok.tokens.sequences.layout import SequenceLayout
from vqtok.tokens.sequences.size_prefix import SizePrefix

Dims = tuple[int | None, ...]


def flat(
    codebook_sizes: Sequence[int], first: int = 0, dims: Dims = (None, None)
) -> SequenceLayout:
    """Begin, codes position after position, end. It tells the dims if at most one is open."""
    begin, end = first, first + 1
    return SequenceLayout(
        codebooks=_spans(codebook_sizes, first + 2), dims=dims, begin=begin, end=end
    )


def raster(
    codebook_sizes: Sequence[int], first: int = 0, dims: Dims = (None, None)
) -> SequenceLayout:
    """As flat, with a token after each row, so that images of any size tell theirs."""
    begin, end, row_end = range(first, first + 3)
    return SequenceLayout(
        codebooks=_spans(codebook_sizes, first + 3),
        dims=dims,
        begin=begin,
        row_end=row_end,
        end=end,
    )


def chameleon(
    codebook_sizes: Sequence[int], first: int = 0, dims: Dims = (32, 32)
) -> SequenceLayout:
    """Chameleon (arXiv 2405.09818): images of one size, begin and end. Its released vocabulary has
    the codes in no order: give ``CodebookTokens`` with a table for that.
    """
    if None in dims:
        raise ValueError(f"a Chameleon layout has images of one size, not {dims}")
    return flat(codebook_sizes, first, dims)


def emu3(
    codebook_sizes: Sequence[int], first: int = 0, dims: Dims = (None, None)
) -> SequenceLayout:
    """Emu3 (arXiv 2409.18869): begin, "h*w" in digits, a marker, rows with a token after each, one
    after the last, end.
    """
    begin, end, row_end, content_end, separator, size_end = range(first, first + 6)
    digits = first + 6
    return SequenceLayout(
        codebooks=_spans(codebook_sizes, digits + 10),
        dims=dims,
        begin=begin,
        size=SizePrefix(first=digits, separator=separator, end=size_end),
        row_end=row_end,
        content_end=content_end,
        end=end,
    )


def delay(codebook_sizes: Sequence[int], first: int = 0, dims: Dims = (None, 1)) -> SequenceLayout:
    """Codebook q comes q positions late, in one line that a model of text and images can share."""
    begin, end, pad = range(first, first + 3)
    return SequenceLayout(
        codebooks=_spans(codebook_sizes, first + 3),
        dims=dims,
        order="delay",
        pad=pad,
        begin=begin,
        end=end,
    )


def musicgen(
    codebook_sizes: Sequence[int], first: int = 0, dims: Dims = (None, 1)
) -> SequenceLayout:
    """MusicGen (arXiv 2306.05284): rows of one code per codebook, codebook q comes q rows late, all
    codebooks have the same tokens, and the one after them stands before the start and in holes.
    """
    special = first + max(codebook_sizes)
    return SequenceLayout(
        codebooks=tuple(CodebookTokens(size, first) for size in codebook_sizes),
        dims=dims,
        order="delay",
        pad=special,
        parallel=True,
        begin=special,
    )


PRESETS: dict[str, Callable[[Sequence[int], int, Dims], SequenceLayout]] = {
    "flat": flat,
    "raster": raster,
    "chameleon": chameleon,
    "emu3": emu3,
    "delay": delay,
    "musicgen": musicgen,
}


def _spans(codebook_sizes: Sequence[int], first: int) -> tuple[CodebookTokens, ...]:
    """Codebooks one after the other from token ``first`` on."""
    codebooks = []
    for size in codebook_sizes:
        codebooks.append(CodebookTokens(size, first))
        first += size
    return tuple(codebooks)
