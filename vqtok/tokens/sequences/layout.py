"""How the codes of one image or sound become tokens of a language model: declared, not coded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtok.tokens.sequences.codebook import MAX_TOKEN, CodebookTokens
from vqtok.tokens.sequences.orders import ORDERS, arrange
from vqtok.tokens.sequences.parsing import Parsed, parse
from vqtok.tokens.sequences.size_prefix import SizePrefix

FORMAT = "vqtok.sequence-layout"
FORMAT_VERSION = 1
MAX_DELAY = 1 << 16
"""Delays are below this, as every sequence is longer by the largest."""
_MARKERS = ("begin", "row_end", "content_end", "end")


@dataclass(frozen=True, kw_only=True)
class SequenceLayout:
    """The sequence ``begin, size, codes with row_end after each row, content_end, end``.

    Every part but the codes may be left out. LAYOUT.md defines it all; ``to_json`` and
    ``from_json`` are the same as data.

    Attributes:
        codebooks: the tokens of each codebook. Ranges of several codebooks may overlap: the
            position tells them apart.
        dims: per axis of the codes (without the codebook axis) its size, or None where it varies.
        order: "interleave": position after position, each with a code of every codebook;
            "flatten": codebook after codebook, each with all positions; "delay": interleaved, but
            codebook q is ``delays[q]`` positions late (MusicGen, arXiv 2306.05284).
        delays: by default 0, 1, ..., Q-1; only of "delay".
        pad: the token where "delay" has no code.
        parallel: a row of Q tokens per position instead of one token after the other, for models
            with an embedding per codebook; markers then fill a row.
        begin, row_end, content_end, end: marker tokens, None for none.
        size: the dims in tokens.

    Raises:
        ValueError: tokens of different meaning are the same, or a part is missing or malformed.
    """

    codebooks: tuple[CodebookTokens, ...]
    dims: tuple[int | None, ...] = (None, None)
    order: str = "interleave"
    delays: tuple[int, ...] = ()
    pad: int | None = None
    parallel: bool = False
    begin: int | None = None
    size: SizePrefix | None = None
    row_end: int | None = None
    content_end: int | None = None
    end: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "codebooks", tuple(self.codebooks))
        object.__setattr__(self, "dims", tuple(self.dims))
        delays = tuple(self.delays)
        if self.order == "delay" and not delays:
            delays = tuple(range(self.num_codebooks))
        object.__setattr__(self, "delays", delays)
        self._check_shape()
        self._check_order()
        self._check_tokens()

    @property
    def num_codebooks(self) -> int:
        """Q, the last axis of the codes."""
        return len(self.codebooks)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """K of each codebook."""
        return tuple(codebook.size for codebook in self.codebooks)

    @cached_property
    def vocabulary_size(self) -> int:
        """One more than the highest token that the layout uses."""
        highest = [codebook.stop - 1 for codebook in self.codebooks]
        highest += self.markers.values()
        if self.size is not None:
            highest += [*self.size.markers, self.size.span[-1]]
        return max(highest) + 1

    @cached_property
    def markers(self) -> dict[str, int]:
        """Marker tokens by their names; without those of the size."""
        named = {name: getattr(self, name) for name in (*_MARKERS, "pad")}
        return {name: token for name, token in named.items() if token is not None}

    @property
    def tells_dims(self) -> bool:
        """Whether tokens alone tell the dims, so that :meth:`codes` needs no ``dims``."""
        free = [axis for axis, size in enumerate(self.dims) if size is None]
        if self.size is not None or len(free) <= 1:
            return True
        return self.row_end is not None and free == [len(self.dims) - 2, len(self.dims) - 1]

    def tokens(self, codes: NDArray[Any]) -> NDArray[np.int64]:
        """The sequence of one sample.

        Args:
            codes: integers [*dims, Q], each of codebook q in [0, K_q).

        Returns:
            int64 [n], or [n, Q] where ``parallel``, with n = :meth:`length` of the dims.

        Raises:
            ValueError: codes of another shape, other sizes of fixed axes, or codes out of range.
        """
        codes = np.asarray(codes)
        self._check_codes(codes)
        return self.lay_out(codes)

    def lay_out(self, codes: NDArray[Any]) -> NDArray[np.int64]:
        """As :meth:`tokens`, of codes that are known to be in range and of dims that fit."""
        lines = arrange(self, self._to_tokens(codes))
        before, after = self._before, self._after
        if self.size is not None:
            before = [*before, *self.size.tokens(codes.shape[:-1])]
        count, width = lines.shape[:2]
        step = width + (self.row_end is not None)
        start, stop = len(before), len(before) + count * step
        shape = (stop + len(after), *lines.shape[2:])
        result = np.empty(shape, np.int64)
        body = result[start:stop].reshape(count, step, *shape[1:])
        body[:, :width] = lines
        if self.row_end is not None:
            body[:, width] = self.row_end
        for at, token in enumerate(before):
            result[at] = token
        for at, token in enumerate(after, stop):
            result[at] = token
        return result

    def codes(self, tokens: NDArray[Any], dims: Sequence[int] | None = None) -> NDArray[np.int64]:
        """Codes int64 [*dims, Q] of a well-formed sequence: the exact opposite of :meth:`tokens`.

        ``dims`` is needed where the layout doesn't tell them (see ``tells_dims``).

        Raises ValueError with what is wrong about any other sequence; :meth:`parse` makes the best
        of it.
        """
        parsed = self.parse(tokens, dims)
        if parsed.problems:
            raise ValueError("malformed sequence: " + "; ".join(parsed.problems))
        return parsed.codes

    def parse(self, tokens: NDArray[Any], dims: Sequence[int] | None = None) -> Parsed:
        """Codes of any sequence, such as a model's, cut short or wrong, and what is wrong with it.

        Args:
            tokens: integers [n], or [n, Q] where ``parallel``.
            dims: of the codes, if they are known; else they are taken from the sequence.

        Raises:
            ValueError: another shape, or dims that neither layout nor argument tell.
        """
        return parse(self, np.asarray(tokens), dims)

    def length(self, dims: NDArray[Any] | Sequence[int]) -> NDArray[np.int64]:
        """How many tokens samples have: int64 [...] from dims [..., d]; rows where ``parallel``."""
        table = np.asarray(dims, np.int64)
        if table.shape[-1:] != (len(self.dims),):
            raise ValueError(
                f"dims have shape {list(table.shape)}, expected [..., {len(self.dims)}]"
            )
        flat = table.reshape(-1, len(self.dims))
        positions = flat.prod(axis=1)
        rows = flat[:, :-1].prod(axis=1) if self.row_end is not None else np.int64(0)
        repeats = self.num_codebooks if self.order == "flatten" else 1
        width = 1 if self.parallel else self.num_codebooks
        delay = max(self.delays, default=0)
        total = (positions + delay) * width + rows * repeats
        if self.size is not None:
            total = total + self.size.lengths(flat)
        total = total + sum(token is not None for token in (self.begin, self.content_end, self.end))
        return np.asarray(total, np.int64).reshape(table.shape[:-1])

    def allows(self, dims: Sequence[int]) -> bool:
        """Whether ``dims``, as many as there are, have the sizes of the fixed axes."""
        return all(size in (None, own) for size, own in zip(self.dims, dims, strict=True))

    def codes_of(self, tokens: NDArray[Any]) -> NDArray[np.int64]:
        """Codes [..., Q] of tokens [..., Q], codebook q's in column q; -1 for any other token."""
        planes = [book.codes(tokens[..., q]) for q, book in enumerate(self.codebooks)]
        return planes[0][..., None] if len(planes) == 1 else np.stack(planes, -1)

    def owns(self, tokens: NDArray[Any]) -> NDArray[np.bool_]:
        """Which of ``tokens``, of any shape, can be part of its sequences: bool, the same shape."""
        own = np.isin(tokens, list(self.markers.values()))
        for book in self.codebooks:
            own |= book.codes(tokens) >= 0
        if self.size is not None:
            own |= np.isin(tokens, self.size.markers)
            own |= (tokens >= self.size.span.start) & (tokens < self.size.span.stop)
        return own

    def to_json(self) -> dict[str, Any]:
        """The JSON object of LAYOUT.md; what is None, False or empty is left out."""
        result: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION}
        result["codebooks"] = [codebook.to_json() for codebook in self.codebooks]
        result["dims"] = list(self.dims)
        result["order"] = self.order
        if self.delays:
            result["delays"] = list(self.delays)
        if self.parallel:
            result["parallel"] = True
        if self.size is not None:
            result["size"] = self.size.to_json()
        return result | self.markers

    @classmethod
    def from_json(cls, value: object) -> SequenceLayout:
        """The opposite; ValueError for an object that LAYOUT.md doesn't allow."""
        if not isinstance(value, Mapping) or value.get("format") != FORMAT:
            raise ValueError(f"not a sequence layout (no format {FORMAT!r})")
        if value.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"layout version {value.get('format_version')!r} is not {FORMAT_VERSION}"
            )
        entries = {k: v for k, v in value.items() if k not in ("format", "format_version")}
        unknown = entries.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"a layout has no {sorted(unknown)}")
        for key in ("codebooks", "dims", "delays"):
            if not isinstance(entries.get(key, []), list):
                raise ValueError(f"{key} must be a list, got {entries[key]!r:.80}")
        entries["codebooks"] = tuple(map(CodebookTokens.from_json, entries.get("codebooks", [])))
        if "size" in entries:
            entries["size"] = SizePrefix.from_json(entries["size"])
        return cls(**entries)

    @cached_property
    def _before(self) -> list[int]:
        return [] if self.begin is None else [self.begin]

    @cached_property
    def _after(self) -> list[int]:
        return [token for token in (self.content_end, self.end) if token is not None]

    def _to_tokens(self, codes: NDArray[Any]) -> NDArray[np.int64]:
        """Codes [..., Q] as tokens of the same shape."""
        if self._firsts is not None:
            return np.asarray(codes + self._firsts)
        planes = [book.tokens(codes[..., q]) for q, book in enumerate(self.codebooks)]
        return np.stack(planes, -1)

    @cached_property
    def _firsts(self) -> NDArray[np.int64] | None:
        """First tokens [Q], None where a codebook has a table."""
        if any(codebook.table is not None for codebook in self.codebooks):
            return None
        return np.array([codebook.first for codebook in self.codebooks], np.int64)

    @cached_property
    def _limits(self) -> NDArray[np.uint64]:
        return np.array(self.codebook_sizes, np.uint64)

    def _check_codes(self, codes: NDArray[Any]) -> None:
        dims = codes.shape[:-1]
        fits = codes.ndim == len(self.dims) + 1 and codes.shape[-1] == self.num_codebooks
        if not fits or 0 in dims or not self.allows(dims):
            names = ", ".join("any" if size is None else str(size) for size in self.dims)
            raise ValueError(
                f"codes have shape {list(codes.shape)}, the layout is for "
                f"[{names}, {self.num_codebooks}]"
            )
        if codes.dtype.kind not in "iu":
            raise ValueError(f"codes are {codes.dtype}, not integers")
        if (codes.astype(np.int64).view(np.uint64) >= self._limits).any():
            raise ValueError(
                f"codes span [{codes.min()}, {codes.max()}], codebook sizes are "
                f"{list(self.codebook_sizes)}"
            )

    def _check_shape(self) -> None:
        if not self.codebooks:
            raise ValueError("a layout needs at least one codebook")
        if not self.dims or not all(_is_size(size) for size in self.dims):
            raise ValueError(f"dims must be sizes >= 1, or None for any, got {self.dims!r}")

    def _check_order(self) -> None:
        if self.order not in ORDERS:
            raise ValueError(f"order must be one of {ORDERS}, got {self.order!r}")
        late = [type(delay) is int and 0 <= delay < MAX_DELAY for delay in self.delays]
        if self.order == "delay":
            if len(late) != self.num_codebooks or not all(late) or min(self.delays) != 0:
                raise ValueError(
                    f"delays must be {self.num_codebooks} integers in [0, 2**16), one of them 0, "
                    f"got {self.delays!r}"
                )
            if self.pad is None or self.row_end is not None:
                raise ValueError('order "delay" needs a pad token and has no row_end')
        elif self.delays or self.pad is not None:
            raise ValueError('delays and pad belong to order "delay"')
        if type(self.parallel) is not bool or (self.parallel and self.order == "flatten"):
            raise ValueError('parallel is True or False, and False in order "flatten"')

    def _check_tokens(self) -> None:
        for name, token in self.markers.items():
            if type(token) is not int or not 0 <= token < MAX_TOKEN:
                raise ValueError(f"{name} must be a token in [0, 2**31), got {token!r}")
        named = [(name, token) for name, token in self.markers.items() if name != "pad"]
        if self.size is not None:
            named += [("the size", token) for token in self.size.markers]
        taken: dict[int, str] = {}
        # MusicGen begins with the token that it pads with.
        if self.pad is not None and self.pad != self.begin:
            named.append(("pad", self.pad))
        for name, token in named:
            if token in taken:
                raise ValueError(f"token {token} is both {taken[token]} and {name}")
            taken[token] = name
        for token, name in taken.items():
            if self.size is not None and token in self.size.span:
                raise ValueError(f"{name} is token {token}, which also says a size")
            for q, book in enumerate(self.codebooks):
                if book.codes(np.array([token]))[0] >= 0:
                    raise ValueError(f"{name} is token {token}, which is a code of codebook {q}")
        for q, book in enumerate(self.codebooks if self.size is not None else ()):
            if self.size is not None and book.overlaps(self.size.span):
                raise ValueError(f"codes of codebook {q} are tokens that also say a size")


def _is_size(size: object) -> bool:
    return size is None or (type(size) is int and 1 <= size < 1 << 31)
