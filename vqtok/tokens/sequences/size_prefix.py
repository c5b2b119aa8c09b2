"""The dims of an image, said in tokens before its codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class SizePrefix:
    """Sizes of the axes, in the order of the dims, before the codes.

    ``style`` "digits": decimal digits, ``first + digit`` each, with ``separator`` between axes
    (Emu3's "32*24"). ``style`` "number": one token per axis, ``first + size``, sizes in
    [1, ``largest``] (Lumina-mGPT's). ``end``: a token after it all, None for none.

    Raises ValueError for an unknown style or one that lacks what it needs.
    """

    style: str = "digits"
    first: int
    separator: int | None = None
    largest: int = 0
    end: int | None = None

    def __post_init__(self) -> None:
        if self.style not in ("digits", "number"):
            raise ValueError(f'size style must be "digits" or "number", got {self.style!r}')
        for name in ("first", "separator", "largest", "end"):
            value = getattr(self, name)
            optional = name in ("separator", "end") and value is None
            if not optional and not (type(value) is int and 0 <= value < 1 << 31):
                raise ValueError(f"size {name} must be an integer in [0, 2**31), got {value!r}")
        if self.style == "digits" and (self.separator is None or self.end is None):
            raise ValueError("a size in digits needs a separator and an end")
        if (self.separator is not None) if self.style == "number" else self.largest:
            raise ValueError("separator belongs to digits, largest to single tokens")
        if self.style == "number" and self.largest < 1:
            raise ValueError("a size in single tokens needs the largest size")

    @property
    def markers(self) -> list[int]:
        """The single tokens that are not digits or sizes."""
        return [token for token in (self.separator, self.end) if token is not None]

    @property
    def span(self) -> range:
        """The tokens of digits or sizes."""
        if self.style == "digits":
            return range(self.first, self.first + 10)
        return range(self.first + 1, self.first + self.largest + 1)

    def tokens(self, dims: Sequence[int]) -> list[int]:
        """The prefix of ``dims``; ValueError for one that cannot be said."""
        ends = [] if self.end is None else [self.end]
        if self.style == "number":
            if max(dims, default=0) > self.largest:
                raise ValueError(f"dims {list(dims)} are beyond the layout's {self.largest}")
            return [self.first + size for size in dims] + ends
        result: list[int] = []
        for size in dims:
            result += [self.first + int(digit) for digit in str(size)]
            result.append(self.separator or 0)
        return result[:-1] + ends

    def lengths(self, dims: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many tokens the prefix of each row of ``dims`` [N, d] has: int64 [N]."""
        count, axes = dims.shape
        ends = int(self.end is not None)
        if self.style == "number":
            return np.full(count, axes + ends, np.int64)
        digits = np.ones_like(dims)
        for power in range(1, 10):
            digits += dims >= 10**power
        return np.asarray(digits.sum(axis=1) + (axes - 1 + ends), np.int64)

    def parse(self, tokens: Sequence[int], axes: int) -> tuple[list[int] | None, int]:
        """(dims or None where they are malformed, number of tokens that belong to the prefix)."""
        if self.style == "number":
            sizes = [token - self.first for token in tokens[:axes] if token in self.span]
            used = len(sizes)
            ended = self.end is None or list(tokens[used : used + 1]) == [self.end]
            well = len(sizes) == axes and ended
            return (sizes if well else None), used + int(ended and self.end is not None)
        words, used = [""], 0
        for token in tokens:
            if token in self.span:
                words[-1] += str(token - self.first)
            elif token == self.separator:
                words.append("")
            else:
                break
            used += 1
        ended = list(tokens[used : used + 1]) == [self.end]
        well = len(words) == axes and ended
        well = well and all(0 < len(word) < 10 and word[0] != "0" for word in words)
        return ([int(word) for word in words] if well else None), used + int(ended)

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the keys of the arguments; what is None or unused is left out."""
        unused = "largest" if self.style == "digits" else "separator"
        entries = asdict(self).items()
        return {key: value for key, value in entries if value is not None and key != unused}

    @classmethod
    def from_json(cls, value: object) -> SizePrefix:
        """The opposite; ValueError for anything else."""
        if not isinstance(value, Mapping) or not value.keys() <= {f.name for f in fields(cls)}:
            raise ValueError(f"size is malformed: {value!r:.80}")
        if "first" not in value:
            raise ValueError("size lacks first")
        return cls(**value)
