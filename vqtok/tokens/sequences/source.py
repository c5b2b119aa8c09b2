"""A token dataset as documents of a vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtok.errors import DataError
from vqtok.tokens.reader import TokenReader
from vqtok.tokens.sequences.layout import SequenceLayout
from vqtok.tokens.sequences.shuffling import mix
from vqtok.tokens.sequences.vocabulary import Vocabulary

MAX_REPEAT = 1_000_000


@dataclass(frozen=True)
class TokenSource:
    """One token dataset of a mixture.

    Attributes:
        path: a dataset folder or a shard.
        layout: name of its layout in the vocabulary. As many codebooks are read as that has.
        repeat: visits of a sample per epoch; 0.5 visits another half in each.
        caption: text (or tokens of text) before the codes, from the sample's metadata; always the
            same for the same metadata. It makes opening slow: all metadata are read once.
        window: per axis, the largest size; of larger samples a random window is taken, another one
            at each visit. None: whole. Of channels, the first ones: 1 is the middle of stereo.
    """

    path: Path | str
    layout: str = ""
    repeat: float = 1.0
    caption: Callable[[Mapping[str, Any]], str | NDArray[Any]] | None = None
    window: tuple[int | None, ...] | None = None


class Documents:
    """The samples of a source as token sequences with known lengths.

    ``lengths``: uint32 [N], 0 for a sample whose shape is damaged.

    Raises:
        ValueError: layout, window or repeat that don't fit the dataset.
        DataError: the dataset cannot be read.
    """

    def __init__(self, source: TokenSource, vocabulary: Vocabulary | SequenceLayout) -> None:
        self.source = source
        self.vocabulary = vocabulary if isinstance(vocabulary, Vocabulary) else None
        self.layout = _layout(source, vocabulary)
        self.reader = TokenReader(source.path)
        sizes = self.reader.header.codebook_sizes[: self.layout.num_codebooks]
        if sizes != self.layout.codebook_sizes:
            raise ValueError(
                f"{source.path}: codebook sizes are {list(self.reader.header.codebook_sizes)}, the "
                f"layout is for {list(self.layout.codebook_sizes)}"
            )
        if not 0 < source.repeat <= MAX_REPEAT:
            raise ValueError(
                f"{source.path}: repeat must be positive, at most {MAX_REPEAT:,}, "
                f"not {source.repeat}"
            )
        if source.caption is not None and (self.vocabulary is None or not self.vocabulary.text):
            raise ValueError(f"{source.path}: captions need a vocabulary with text")
        self._begin = _marker(None if self.vocabulary is None else self.vocabulary.begin)
        self._end = _marker(None if self.vocabulary is None else self.vocabulary.end)
        self._window = self._limits()
        self.lengths = self._lengths()

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def window(self) -> list[int | None] | None:
        """The source's window in Python's own integers."""
        window = self.source.window
        return None if window is None else [None if side is None else int(side) for side in window]

    def read(self, sample: int, turn: int, seed: int) -> NDArray[np.int64]:
        """Tokens int64 [lengths[sample]] (or [.., Q]); DataError where the sample is damaged.

        ``turn`` and ``seed`` choose the window.
        """
        Q = self.layout.num_codebooks
        if self.source.caption is None:
            codes, caption = self.reader.codes(sample, Q), None
        else:
            both = self.reader.read(sample, Q)
            codes, caption = both.codes, self.source.caption(both.meta)
        if self._window is not None:
            codes = self._cut(codes, sample, turn, seed)
        # The reader has checked the codes, and _lengths() the dims of what it tells.
        tokens = self.layout.lay_out(codes)
        if self.vocabulary is None:
            return tokens
        text = [] if caption is None else [self.vocabulary.text_tokens(caption)]
        pieces = [*self._begin, *text, tokens, *self._end]
        return np.concatenate(pieces) if len(pieces) > 1 else tokens

    def _cut(
        self, codes: NDArray[np.int64], sample: int, turn: int, seed: int
    ) -> NDArray[np.int64]:
        assert self._window is not None
        rest = np.array(codes.shape[:-1]) - self._window
        random = np.array([seed, sample, turn], np.uint64)
        for axis in np.flatnonzero(rest > 0).tolist():
            random = mix(random + np.uint64(axis + 1))
            place = int(random.sum() >> np.uint64(11)) % (int(rest[axis]) + 1)
            if self.reader.header.dims[axis] == "c":
                place = 0
            codes = np.take(codes, range(place, place + int(self._window[axis])), axis)
        return codes

    def _limits(self) -> NDArray[np.int64] | None:
        window = self.source.window
        if window is None:
            return None
        axes = self.reader.header.dims
        if len(window) != len(axes) or any(size is not None and size < 1 for size in window):
            raise ValueError(f"{self.source.path}: window {window} is no size for each of {axes}")
        return np.array([np.iinfo(np.int64).max if s is None else s for s in window], np.int64)

    def _lengths(self) -> NDArray[np.uint32]:
        dims = self.reader.dims()
        if dims.shape[1] != len(self.layout.dims):
            raise ValueError(
                f"{self.source.path}: samples have axes {self.reader.header.dims}, the layout "
                f"has {len(self.layout.dims)}"
            )
        damaged = (dims == 0).any(axis=1)
        if self._window is not None:
            dims = np.minimum(dims, self._window)
        for axis, size in enumerate(self.layout.dims):
            other = np.flatnonzero((dims[:, axis] != size) & ~damaged)
            if size is not None and len(other):
                raise ValueError(
                    f"{self.source.path}: sample {other[0]} has dims {dims[other[0]].tolist()}, "
                    f"the layout is for {self.layout.dims}: encode inputs of one size, set a "
                    "window, or take another layout"
                )
        lengths = self.layout.length(dims)
        if self.vocabulary is not None:
            lengths += (self.vocabulary.begin is not None) + (self.vocabulary.end is not None)
        if self.source.caption is not None:
            lengths += self._caption_lengths(damaged)
        lengths[damaged] = 0
        if lengths.max(initial=0) >= 1 << 32:
            raise ValueError(f"{self.source.path}: a sample has {lengths.max()} tokens")
        return lengths.astype(np.uint32)

    def _caption_lengths(self, damaged: NDArray[np.bool_]) -> NDArray[np.int64]:
        assert self.source.caption is not None
        assert self.vocabulary is not None
        lengths = np.zeros(len(damaged), np.int64)
        for sample in range(len(damaged)):
            try:
                meta = self.reader.meta(sample)
            except DataError:  # noqa: PERF203
                damaged[sample] = True
            else:
                lengths[sample] = len(self.vocabulary.text_tokens(self.source.caption(meta)))
        return lengths


def _marker(token: int | None) -> list[NDArray[np.int64]]:
    """A token around documents as the pieces that it is."""
    return [] if token is None else [np.array([token], np.int64)]


def _layout(source: TokenSource, vocabulary: Vocabulary | SequenceLayout) -> SequenceLayout:
    if isinstance(vocabulary, SequenceLayout):
        return vocabulary
    if source.layout not in vocabulary.layouts:
        raise ValueError(
            f"{source.path}: the vocabulary has no layout {source.layout!r}, "
            f"but {sorted(vocabulary.layouts)}"
        )
    return vocabulary.layouts[source.layout]
