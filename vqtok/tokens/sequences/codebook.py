"""Which tokens of a language model's vocabulary are the codes of one codebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_TOKEN = 1 << 31
"""Tokens are below this."""


@dataclass(frozen=True)
class CodebookTokens:
    """Code c of a codebook of ``size`` codes is token ``first + c``, or ``table[c]``.

    ``table``: ``size`` different tokens, for vocabularies where the codes lie in no simple order
    (Chameleon's); ``first`` is then the lowest of them and need not be given.

    Raises ValueError for a size below 1, tokens outside [0, 2**31) or twice in the table.
    """

    size: int
    first: int = 0
    table: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not _is_int(self.size) or not 1 <= self.size <= MAX_TOKEN:
            raise ValueError(f"a codebook needs a size in [1, 2**31], got {self.size!r}")
        if self.table is not None:
            table = tuple(self.table)
            if len(table) != self.size or not all(map(_is_int, table)):
                raise ValueError(f"table must list {self.size} tokens, one per code")
            if len(set(table)) != self.size:
                raise ValueError("table lists a token twice")
            object.__setattr__(self, "table", table)
            object.__setattr__(self, "first", min(table))
        if not _is_int(self.first):
            raise ValueError(f"first must be a token, got {self.first!r:.80}")
        if self.first < 0 or self.stop > MAX_TOKEN:
            raise ValueError(f"codes would be tokens {self.first} to {self.stop - 1}")

    @property
    def stop(self) -> int:
        """One more than the highest token."""
        return self.first + self.size if self.table is None else max(self.table) + 1

    def tokens(self, codes: NDArray[Any]) -> NDArray[Any]:
        """Tokens of codes, which must be in [0, size)."""
        if self.table is not None:
            listed: NDArray[np.int64] = self._table[codes]
            return listed
        return np.asarray(codes, np.int64) + self.first

    def codes(self, tokens: NDArray[Any]) -> NDArray[np.int64]:
        """Codes int64 of tokens, -1 for what is no code of this codebook."""
        tokens = tokens.astype(np.int64)
        if self.table is not None:
            # Not by a table of all tokens between: they may be far apart.
            places = np.searchsorted(self._table, tokens, sorter=self._order)
            codes = self._order[np.minimum(places, self.size - 1)]
            return np.where(self._table[codes] == tokens, codes, -1)
        shifted = tokens - self.first
        return np.where((shifted < 0) | (shifted >= self.size), -1, shifted)

    def overlaps(self, span: range) -> bool:
        """Whether a token of ``span`` is one of its codes."""
        if self.table is not None:
            return any(token in span for token in self.table)
        return span.start < self.stop and self.first < span.stop

    def to_json(self) -> dict[str, Any]:
        """``{"size", "first"}`` or ``{"size", "table"}``."""
        if self.table is None:
            return {"size": self.size, "first": self.first}
        return {"size": self.size, "table": list(self.table)}

    @classmethod
    def from_json(cls, value: object) -> CodebookTokens:
        """The opposite; ValueError for anything else."""
        keys = value.keys() if isinstance(value, Mapping) else set()
        if not isinstance(value, Mapping) or keys not in ({"size", "first"}, {"size", "table"}):
            raise ValueError(f"a codebook has size, and first or table, not {value!r:.80}")
        table = value.get("table")
        if table is not None and not isinstance(table, list):
            raise ValueError("table must be a list of tokens")
        return cls(value["size"], value.get("first", 0), None if table is None else tuple(table))

    def __repr__(self) -> str:
        where = f"first={self.first}" if self.table is None else "table=..."
        return f"CodebookTokens(size={self.size}, {where})"

    @cached_property
    def _table(self) -> NDArray[np.int64]:
        return np.array(self.table, np.int64)

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """Codes in the order of their tokens."""
        return np.argsort(self._table)


def _is_int(value: object) -> bool:
    return type(value) is int
