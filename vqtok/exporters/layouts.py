"""Which layout an export is to have."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from vqtok.errors import UsageError
from vqtok.tokens import Header
from vqtok.tokens.header import parse_json
from vqtok.tokens.sequences import PRESETS, CodebookTokens, SequenceLayout, Vocabulary


def find_layout(text: str, header: Header, codebook_sizes: Sequence[int]) -> SequenceLayout:
    """The layout that ``text`` means: a preset, or a JSON file with a layout or a vocabulary.

    Of a vocabulary that of the tokenizer's name. Raises UsageError when there is none, DataError
    for a malformed file.
    """
    if text in PRESETS:
        try:
            return PRESETS[text](codebook_sizes)  # type: ignore[call-arg]
        except ValueError as error:
            raise UsageError(f"--layout {text} is not for this tokenizer: {error}") from error
    path = Path(text)
    if not os.path.isfile(path):
        raise UsageError(
            f"--layout {text}: neither a preset ({', '.join(PRESETS)}) nor a JSON file of a layout "
            "or vocabulary"
        )
    value = parse_json(path.read_bytes(), str(path))
    try:
        if not (isinstance(value, dict) and "layouts" in value):
            return SequenceLayout.from_json(value)
        layouts = Vocabulary.from_json(value).layouts
    except ValueError as error:
        raise UsageError(f"--layout {path}: {error}") from error
    if header.tokenizer_name not in layouts:
        raise UsageError(
            f"--layout {path}: the vocabulary has no layout for tokenizer "
            f"{header.tokenizer_name!r}, only {', '.join(layouts) or 'none'}"
        )
    return layouts[header.tokenizer_name]


def codes_in_line(header: Header, codebook_sizes: Sequence[int]) -> SequenceLayout:
    """The codes alone, position after position; those of each codebook after those of the last."""
    firsts = accumulate(codebook_sizes[:-1], initial=0)
    try:
        codebooks = tuple(map(CodebookTokens, codebook_sizes, firsts))
        return SequenceLayout(codebooks=codebooks, dims=(None,) * len(header.dims))
    except ValueError as error:
        raise UsageError(f"the codes make no tokens: {error}") from error


def check_layout(layout: SequenceLayout, codebook_sizes: Sequence[int]) -> None:
    """UsageError unless the layout is for these codebooks."""
    if layout.codebook_sizes != tuple(codebook_sizes):
        raise UsageError(
            f"the layout is for codebooks of {list(layout.codebook_sizes)} codes, the exported "
            f"ones have {list(codebook_sizes)}"
        )
