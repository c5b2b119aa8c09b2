"""One vocabulary for text and the codes of several tokenizers, and documents made of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtok.errors import DataError
from vqtok.files import atomic_write
from vqtok.tokens.header import parse_json
from vqtok.tokens.sequences.codebook import MAX_TOKEN
from vqtok.tokens.sequences.layout import SequenceLayout
from vqtok.tokens.sequences.parsing import Parsed
from vqtok.tokens.sequences.presets import PRESETS

FORMAT = "vqtok.vocabulary"
FORMAT_VERSION = 1
BYTES = 256
_KEYS = {"format", "format_version", "size", "text", "begin", "end", "pad", "layouts"}

Span = tuple[str, str, range]
"""Tokens that only one layout has (its name, "" for the vocabulary's own), and what they are."""

Part = str | NDArray[Any] | tuple[str, NDArray[Any]]
"""Text, tokens of text, or (name of a layout, codes)."""


@dataclass(frozen=True)
class Segment:
    """A part of a parsed document: tokens [start, stop) of it.

    ``name``: of the layout, "text", or "" for tokens that belong to nothing. ``text``: of a
    segment of UTF-8 bytes. ``parsed``: of a layout's. ``problems``: what is wrong with it.
    """

    name: str
    start: int
    stop: int
    text: str | None = None
    parsed: Parsed | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What each token of a multimodal language model means; saved beside its weights.

    Attributes:
        size: number of tokens; an embedding table has as many rows.
        pad: fills what no document does.
        begin, end: of a document, None for none.
        text: the tokens of text. Of 256 they are UTF-8 bytes; any other number is for a text
            tokenizer of yours, whose tokens you give as integers from 0 on.
        layouts: by name, usually the tokenizer's.

    Raises:
        ValueError: a token has two meanings, or one beyond the size.
    """

    size: int
    pad: int
    begin: int | None = None
    end: int | None = None
    text: range = range(0)
    layouts: Mapping[str, SequenceLayout] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 1 <= self.size <= MAX_TOKEN:
            raise ValueError(f"size must be in [1, 2**31], got {self.size!r}")
        taken: list[Span] = [("", "text", self.text)] if self.text else []
        for name in ("pad", "begin", "end"):
            token = getattr(self, name)
            if token is not None or name == "pad":
                if type(token) is not int or token < 0:
                    raise ValueError(f"{name} must be a token, got {token!r}")
                taken.append(("", name, range(token, token + 1)))
        own = {token: name for _, name, span in taken for token in span[:1] if name != "text"}
        for name, layout in self.layouts.items():
            if name in ("", "text") or layout.parallel:
                raise ValueError(f"layout {name!r}: needs another name, or is parallel")
            taken += _spans(name, layout)
            for token in [] if layout.size is None else [*layout.size.span, *layout.size.markers]:
                if token in own:
                    raise ValueError(f"token {token} is {own[token]} and in a size of {name}")
        _check_apart(taken)
        tops = [layout.vocabulary_size for layout in self.layouts.values()]
        top = max([*(span.stop for _, _, span in taken), *tops])
        if top > self.size:
            raise ValueError(f"size is {self.size}, but there are tokens up to {top - 1}")

    @classmethod
    def build(cls, layouts: Mapping[str, tuple[Any, ...]], *, text_size: int = BYTES) -> Vocabulary:
        """Text, then pad, begin and end, then one layout after the other, without gaps.

        Args:
            layouts: name to (preset, codebook_sizes) or (preset, codebook_sizes, dims).
            text_size: 256 for UTF-8 bytes, 0 for no text, else that of your text tokenizer.
        """
        first, built = text_size + 3, {}
        for name, (preset, sizes, *dims) in layouts.items():
            if preset not in PRESETS:
                raise ValueError(f"preset must be one of {tuple(PRESETS)}, got {preset!r}")
            built[name] = PRESETS[preset](sizes, first, *dims)
            first = built[name].vocabulary_size
        pad, begin, end = range(text_size, text_size + 3)
        return cls(size=first, pad=pad, begin=begin, end=end, text=range(text_size), layouts=built)

    def tokens(self, parts: Sequence[Part]) -> NDArray[np.int64]:
        """A document: begin, the parts, end. int64 [n], each in [0, size).

        Raises ValueError for a layout that there is not, and what its layout or
        :meth:`text_tokens` refuses.
        """
        pieces: list[Any] = [] if self.begin is None else [[self.begin]]
        for part in parts:
            if isinstance(part, tuple):
                if part[0] not in self.layouts:
                    raise ValueError(f"no layout {part[0]!r}, only {sorted(self.layouts)}")
                pieces.append(self.layouts[part[0]].tokens(part[1]))
            else:
                pieces.append(self.text_tokens(part))
        if self.end is not None:
            pieces.append([self.end])
        return np.concatenate(pieces, dtype=np.int64) if pieces else np.zeros(0, np.int64)

    def text_tokens(self, text: str | NDArray[Any]) -> NDArray[np.int64]:
        """Tokens int64 [n] of a string (lone surrogates become "?") or of a tokenizer's tokens."""
        if isinstance(text, str):
            if len(self.text) != BYTES:
                raise ValueError(
                    f"this vocabulary has {len(self.text)} tokens of text, not {BYTES} bytes: "
                    "give the tokens of your text tokenizer"
                )
            text = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
        tokens = np.asarray(text)
        if tokens.size and tokens.dtype.kind not in "iu":
            raise ValueError(f"tokens of text are {tokens.dtype}, not integers")
        tokens = tokens.astype(np.int64)
        if tokens.ndim != 1 or ((tokens < 0) | (tokens >= len(self.text))).any():
            raise ValueError(f"tokens of text must be [n], each in [0, {len(self.text)})")
        return tokens + self.text.start

    def parse(
        self, tokens: NDArray[Any], dims: Mapping[str, Sequence[int]] | None = None
    ) -> list[Segment]:
        """Text, images and sounds of any sequence of tokens, such as a model's, in order.

        Args:
            tokens: integers [n]. Begin, end and pad separate segments and are no part of any.
            dims: of the codes by layout, where layouts do not tell them.
        """
        tokens = np.asarray(tokens).astype(np.int64)
        if tokens.ndim != 1:
            raise ValueError(f"tokens have shape {list(tokens.shape)}, expected [n]")
        found = []
        for name, start, stop in self._segments(tokens):
            part = tokens[start:stop]
            if name == "text":
                found.append(_text_segment(self, part, start))
            elif name:
                parsed = self.layouts[name].parse(part, (dims or {}).get(name))
                found.append(Segment(name, start, stop, parsed=parsed, problems=parsed.problems))
            else:
                problem = f"token {part[0]} belongs to nothing"
                found.append(Segment("", start, stop, problems=(problem,)))
        return found

    def _segments(self, tokens: NDArray[np.int64]) -> Iterator[tuple[str, int, int]]:
        """(name, start, stop) in order."""
        silent = np.isin(tokens, [t for t in (self.pad, self.begin, self.end) if t is not None])
        text = (tokens >= self.text.start) & (tokens < self.text.stop)
        owned = {name: layout.owns(tokens) for name, layout in self.layouts.items()}
        opened = {name: tokens == layout.begin for name, layout in self.layouts.items()}
        ended = {name: tokens == layout.end for name, layout in self.layouts.items()}
        breaks = {name: ~owned[name] | opened[name] for name in owned}
        foreign = ~np.any([silent, text, *owned.values()], axis=0)
        at = 0
        while at < len(tokens):
            name = next((name for name in owned if owned[name][at] and not text[at]), "")
            if silent[at]:
                at += 1
                continue
            if name:
                stop = min(_next(breaks[name], at + 1), _next(ended[name], at) + 1, len(tokens))
            elif text[at]:
                name, stop = "text", _next(~text, at)
            else:
                stop = _next(~foreign, at)
            yield name, at, stop
            at = stop

    def to_json(self) -> dict[str, Any]:
        """The JSON object of LAYOUT.md, section "Vocabulary"."""
        result: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION}
        result |= {"size": self.size, "pad": self.pad}
        named = {"begin": self.begin, "end": self.end}
        result |= {name: token for name, token in named.items() if token is not None}
        if self.text:
            result["text"] = {"first": self.text.start, "size": len(self.text)}
        result["layouts"] = {name: layout.to_json() for name, layout in self.layouts.items()}
        return result

    @classmethod
    def from_json(cls, value: object) -> Vocabulary:
        """The opposite; ValueError for an object that LAYOUT.md doesn't allow."""
        if not isinstance(value, Mapping) or value.get("format") != FORMAT:
            raise ValueError(f"not a vocabulary (no format {FORMAT!r})")
        if value.get("format_version") != FORMAT_VERSION:
            raise ValueError(f"vocabulary version {value.get('format_version')!r} is unknown")
        if not {"size", "pad"} <= value.keys() <= _KEYS:
            raise ValueError(f"a vocabulary has the keys {sorted(_KEYS)}, not {sorted(value)}")
        text, layouts = value.get("text", {"first": 0, "size": 0}), value.get("layouts", {})
        if not isinstance(layouts, Mapping) or not isinstance(text, Mapping):
            raise ValueError("text and layouts must be objects")
        first, size = text.get("first"), text.get("size")
        if not (type(first) is int and type(size) is int and first >= 0 and size >= 0):
            raise ValueError(f"text has a first token and a size, not {dict(text)}")
        return cls(
            size=value["size"],
            pad=value["pad"],
            begin=value.get("begin"),
            end=value.get("end"),
            text=range(first, first + size),
            layouts={name: SequenceLayout.from_json(each) for name, each in layouts.items()},
        )

    def save(self, path: Path | str) -> None:
        """Write the JSON file."""
        with atomic_write(Path(path)) as file:
            file.write(json.dumps(self.to_json(), indent=1).encode("ascii") + b"\n")

    @classmethod
    def load(cls, path: Path | str) -> Vocabulary:
        """Read a file of :meth:`save`; DataError if it is not one."""
        try:
            return cls.from_json(parse_json(Path(path).read_bytes(), str(path)))
        except DataError:
            raise
        except ValueError as error:
            raise DataError(f"{path}: {error}") from error


def _spans(name: str, layout: SequenceLayout) -> Iterator[Span]:
    """What only this layout may use; sizes may be said in text."""
    for q, book in enumerate(layout.codebooks):
        yield name, f"codebook {q}", range(book.first, book.stop)
    for marker, token in layout.markers.items():
        yield name, marker, range(token, token + 1)


def _check_apart(taken: list[Span]) -> None:
    """ValueError where spans overlap that are not of one layout."""
    reached: dict[tuple[str, str], tuple[str, range]] = {}
    for layout, part, span in sorted(taken, key=lambda entry: entry[2].start):
        name = f"{layout}:{part}" if layout else part
        owner = (layout, "" if layout else part)
        for other, (before, earlier) in reached.items():
            if other != owner and earlier.stop > span.start:
                raise ValueError(f"tokens of {before} {earlier} and of {name} {span} overlap")
        if owner not in reached or reached[owner][1].stop < span.stop:
            reached[owner] = (name, span)


def _text_segment(vocabulary: Vocabulary, tokens: NDArray[np.int64], start: int) -> Segment:
    stop = start + len(tokens)
    if len(vocabulary.text) != BYTES:
        return Segment("text", start, stop)
    data = (tokens - vocabulary.text.start).astype(np.uint8).tobytes()
    text = data.decode("utf-8", "replace")
    broken = ("it is not UTF-8",) if text.encode() != data else ()
    return Segment("text", start, stop, text=text, problems=broken)


def _next(flags: NDArray[np.bool_], start: int) -> int:
    """The first True from ``start`` on, the length if there is none."""
    rest = flags[start:]
    at = int(rest.argmax()) if len(rest) else 0
    return start + at if len(rest) and rest[at] else len(flags)
