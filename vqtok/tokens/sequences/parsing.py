"""Codes of a sequence that may be anything: exact if it is well-formed, else the best of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vqtok.tokens.sequences.orders import line_shape, restore

if TYPE_CHECKING:
    from vqtok.tokens.sequences.layout import SequenceLayout

Lines = NDArray[np.int64]

MISSING = -1
MAX_INVENTED = 1 << 20
"""Most positions that a size in the sequence itself can make of fewer tokens."""


@dataclass(frozen=True)
class Parsed:
    """What a sequence says.

    Attributes:
        codes: int64 [*dims, Q], each in [0, K_q). Where the sequence had none, the code before of
            the same codebook, in the order of the positions (the next one at the start).
        known: bool [*dims, Q], where the sequence did have one.
        problems: what is wrong with the sequence, sentences for people; empty if it is well-formed.
    """

    codes: NDArray[np.int64]
    known: NDArray[np.bool_]
    problems: tuple[str, ...]

    @property
    def complete_codebooks(self) -> int:
        """How many of the first codebooks are known everywhere: those alone can be decoded."""
        whole = self.known.reshape(-1, self.known.shape[-1]).all(axis=0)
        return int(np.logical_and.accumulate(whole).sum())


def parse(layout: SequenceLayout, tokens: NDArray[Any], dims: Sequence[int] | None) -> Parsed:
    """See :meth:`SequenceLayout.parse`."""
    wanted = _wanted_dims(layout, dims)
    if tokens.dtype.kind not in "iu" or tokens.ndim != 1 + layout.parallel:
        shape = f"[n, {layout.num_codebooks}]" if layout.parallel else "[n]"
        found = f"{tokens.dtype} {list(tokens.shape)}"
        raise ValueError(f"tokens are {found}, expected integers {shape}")
    if layout.parallel and tokens.shape[1] != layout.num_codebooks:
        raise ValueError(f"tokens have {tokens.shape[1]} columns, not {layout.num_codebooks}")
    problems: list[str] = []
    body, claimed = _cut_markers(layout, tokens.astype(np.int64, copy=False), problems)
    told = _join_dims(wanted, claimed, len(body), problems)
    lines = _equal_lines(layout, body)
    if lines is not None:
        full = _infer_dims(layout, lines, told)
    if lines is None or line_shape(layout, full) != lines.shape[:2]:
        found_lines = _split(layout, body)
        full = _infer_dims(layout, found_lines, told)
        lines = _fit_lines(layout, found_lines, line_shape(layout, full), problems)
    return _read_lines(layout, lines, tuple(full), problems)


def _wanted_dims(layout: SequenceLayout, dims: Sequence[int] | None) -> list[int | None]:
    if dims is None:
        if not layout.tells_dims:
            raise ValueError(f"the layout does not tell the dims {layout.dims}: give dims")
        return list(layout.dims)
    fits = len(dims) == len(layout.dims) and min(dims, default=1) >= 1
    if not fits or not layout.allows(dims):
        raise ValueError(f"dims are {list(dims)}, the layout has {layout.dims}")
    return [int(size) for size in dims]


def _cut_markers(
    layout: SequenceLayout, tokens: NDArray[np.int64], problems: list[str]
) -> tuple[Lines, list[int] | None]:
    """The tokens between the markers, and the dims that the sequence claims."""
    lead = _lead(tokens)
    start, stop, claimed = 0, len(tokens), None
    if layout.begin is not None:
        if stop and lead[0] == layout.begin:
            start = 1
        else:
            problems.append(f"it does not begin with token {layout.begin} (begin)")
    if layout.end is not None:
        stop = _find(lead, layout.end, start)
        if stop == len(tokens):
            problems.append(f"it is cut short: no token {layout.end} (end)")
        elif stop + 1 < len(tokens):
            problems.append(f"{len(tokens) - stop - 1} tokens after the end, from {stop + 1} on")
    if layout.size is not None:
        head = lead[start : min(stop, start + 64)].tolist()
        claimed, used = layout.size.parse(head, len(layout.dims))
        if claimed is None:
            problems.append("its size is malformed")
        start += used
    if layout.content_end is not None:
        content = _find(lead[:stop], layout.content_end, start)
        if content == stop:
            problems.append(f"no token {layout.content_end} (content_end)")
        elif content + 1 < stop:
            problems.append(f"{stop - content - 1} tokens between content_end and end")
        stop = content
    return tokens[start:stop], claimed


def _join_dims(
    wanted: list[int | None], claimed: list[int] | None, count: int, problems: list[str]
) -> list[int | None]:
    """Dims that were given, and for the others those that the sequence claims."""
    if claimed is None:
        return wanted
    if math.prod(claimed) > max(MAX_INVENTED, count):
        problems.append(f"it says dims {claimed} but has {count} tokens")
        return wanted
    pairs = list(zip(wanted, claimed, strict=True))
    if any(size not in (None, said) for size, said in pairs):
        problems.append(f"it says dims {claimed} where they are {wanted}")
    return [size or said for size, said in pairs]


def _equal_lines(layout: SequenceLayout, body: Lines) -> Lines | None:
    """The body as lines [lines, width, ...] if they are of one length and all end, else None."""
    if layout.row_end is None:
        return body[None]
    ends = _lead(body) == layout.row_end
    count = int(ends.sum())
    step = len(body) // max(1, count)
    if not count or step < 2 or count * step != len(body) or not ends[step - 1 :: step].all():
        return None
    return body.reshape(count, step, *body.shape[1:])[:, :-1]


def _split(layout: SequenceLayout, body: Lines) -> list[Lines]:
    """The body line by line; the last one has no row_end where the sequence is cut short."""
    if layout.row_end is None:
        return [body]
    ends = np.flatnonzero(_lead(body) == layout.row_end)
    *rows, rest = np.split(body, ends + 1)
    return [row[:-1] for row in rows] + ([rest] if len(rest) else [])


def _infer_dims(
    layout: SequenceLayout, lines: Sequence[Lines] | Lines, dims: Sequence[int | None]
) -> list[int]:
    """The dims with unknown ones taken from the lines."""
    free = [axis for axis, size in enumerate(dims) if size is None]
    result = [size or 1 for size in dims]
    if not free:
        return result
    if layout.row_end is None:
        result[free[0]] = -(-_positions(layout, lines[0]) // math.prod(result))
        return result
    if free[-1] == len(dims) - 1:
        lengths = Counter([len(line) for line in lines] or [0])
        usual = max(lengths, key=lambda length: (lengths[length], length))
        each = 1 if layout.parallel or layout.order == "flatten" else layout.num_codebooks
        result[-1] = -(-usual // each)
    if free[0] != len(dims) - 1:
        count = len(lines)
        if layout.order == "flatten":
            heads = [int(line[0]) if len(line) else MISSING for line in lines]
            count = _first_plane(layout, np.array(heads, np.int64))
        result[free[0]] = -(-count // math.prod(result[:-1]))
    return result


def _positions(layout: SequenceLayout, line: Lines) -> int:
    """Positions of a sequence without rows, rounded up where it is cut short."""
    if layout.order == "flatten":
        return _first_plane(layout, line)
    steps = len(line) if layout.parallel else -(-len(line) // layout.num_codebooks)
    return max(0, steps - max(layout.delays, default=0))


def _first_plane(layout: SequenceLayout, tokens: Lines) -> int:
    """How many of flattened ``tokens`` are of codebook 0: all before those of another codebook.

    Where codebooks share tokens, a Q-th of all, rounded up.
    """
    spans = sorted((book.first, book.stop) for book in layout.codebooks)
    if any(stop > start for (_, stop), (start, _) in pairwise(spans)):
        return -(-len(tokens) // layout.num_codebooks)
    others = np.zeros(len(tokens), bool)
    for book in layout.codebooks[1:]:
        others |= book.codes(tokens) >= 0
    return int(others.argmax()) if others.any() else len(tokens)


def _fit_lines(
    layout: SequenceLayout, lines: list[Lines], shape: tuple[int, int], problems: list[str]
) -> Lines:
    """The lines of ``shape``, MISSING where they are short; tokens too many are left out."""
    count, width = shape
    tail = (layout.num_codebooks,) if layout.parallel else ()
    result = np.full((count, width, *tail), MISSING, np.int64)
    wrong: list[str] = []
    for number, line in enumerate(lines[:count]):
        if len(line) != width:
            where = f"row {number} has" if layout.row_end is not None else "the codes are"
            wrong.append(f"{where} {len(line)} of {width} tokens")
        if len(line) > width:
            line = _without_foreign(layout, line)[:width]
        result[number, : len(line)] = line
    if len(lines) != count:
        wrong.append(f"{len(lines)} rows instead of {count}")
    if layout.row_end is not None and not wrong:
        wrong.append(f"token {layout.row_end} (row_end) is missing")
    problems += wrong[:3] + ([f"{len(wrong) - 3} more such rows"] if len(wrong) > 3 else [])
    return result


def _without_foreign(layout: SequenceLayout, line: Lines) -> Lines:
    """A line without what is no code of any codebook (nor pad)."""
    ours = np.zeros(line.shape, bool)
    for book in layout.codebooks:
        ours |= book.codes(line) >= 0
    if layout.pad is not None:
        ours |= line == layout.pad
    return line[ours.any(axis=1) if layout.parallel else ours]


def _read_lines(
    layout: SequenceLayout, lines: Lines, dims: tuple[int, ...], problems: list[str]
) -> Parsed:
    tokens, holes = restore(layout, lines, dims)
    codes = layout.codes_of(tokens)
    known = codes >= 0
    if not known.all():
        for q in range(layout.num_codebooks):
            foreign = tokens[..., q][~known[..., q] & (tokens[..., q] != MISSING)]
            if len(foreign):
                problems.append(
                    f"{len(foreign)} tokens where codes of codebook {q} belong are none, "
                    f"such as {int(foreign[0])}"
                )
    stray = holes[(holes != layout.pad) & (holes != MISSING)] if len(holes) else holes
    if len(stray):
        problems.append(f"{len(stray)} tokens where pad belongs, such as {int(stray[0])}")
    if not math.prod(dims):
        problems.append("it has no codes")
    return Parsed(_filled(codes, known), known, tuple(problems))


def _filled(codes: NDArray[np.int64], known: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Codes with unknown ones taken from the last known position before, else the first after."""
    if known.all():
        return codes
    flat, have = codes.reshape(-1, codes.shape[-1]), known.reshape(-1, codes.shape[-1])
    rows = np.arange(len(flat))[:, None]
    source = np.maximum.accumulate(np.where(have, rows, -1), axis=0)
    first = np.where(have.any(axis=0), have.argmax(axis=0), 0)
    filled = np.take_along_axis(flat, np.where(source < 0, first, source), axis=0)
    result: NDArray[np.int64] = np.maximum(filled, 0).reshape(codes.shape)
    return result


def _lead(tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """One token per element: that of the row if all of its tokens are the same, else MISSING."""
    if tokens.ndim == 1:
        return tokens
    return np.where((tokens == tokens[:, :1]).all(axis=1), tokens[:, 0], MISSING)


def _find(tokens: NDArray[np.int64], token: int, start: int) -> int:
    """Where ``token`` first is from ``start`` on, the length if nowhere."""
    places = np.flatnonzero(tokens[start:] == token)
    return start + int(places[0]) if len(places) else len(tokens)
