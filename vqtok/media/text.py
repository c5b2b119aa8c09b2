"""Text as symbols: the 256 bytes, and one that ends a sequence. No torch here."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vqtok.errors import DataError

TEXT_END = 256
"""The symbol that ends a sequence."""

TEXT_SYMBOLS = 257
"""How many symbols there are."""

Symbols = npt.NDArray[np.int64]


def text_symbols(text: str | bytes) -> Symbols:
    """Text (a str in UTF-8) as int64 [T + 1]: its bytes, then the end."""
    content = text.encode() if isinstance(text, str) else text
    return np.append(np.frombuffer(content, np.uint8), TEXT_END).astype(np.int64)


def symbols_text(symbols: npt.ArrayLike) -> bytes:
    """The bytes of symbols [T], up to the end if there is one."""
    numbers = np.asarray(symbols, dtype=np.int64)
    ends = np.flatnonzero(numbers == TEXT_END)
    return numbers[: ends[0] if len(ends) else None].astype(np.uint8).tobytes()


def read_text(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file; DataError if there are none."""
    content = Path(path).read_bytes()
    if not content:
        raise DataError(f"{path} is empty")
    return content
