"""Integer adaptive context mixing in plain Python: the oracle of the native code, and what runs
without it. FORMAT.md of vqtok.tokens defines the model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vqtok.ops.counters import Counter, Counters, contexts_at, limited, squash
from vqtok.ops.range_coder import RangeDecoder, RangeEncoder

MAX_CODEBOOK_SIZE = 1 << 20
TRUST = (0, 26214, 39322, 52429)
MAX_TRUST = 72090
MIX_RATE = 5


def encode(planes: NDArray[np.uint32], codebook_size: int) -> bytes:
    """The stream of the last of the planes uint32 [q + 1, rows, columns]."""
    coder = RangeEncoder()
    model = _Model(coder, len(planes) - 1, codebook_size)
    for at in np.ndindex(planes.shape[1:]):
        model.code(contexts_at(planes, *at), int(planes[-1][at]))
    return coder.finish()


def decode(planes: NDArray[np.uint32], codebook_size: int, data: bytes) -> bool:
    """Fill the last of the planes; False if bytes were left over."""
    coder = RangeDecoder(data)
    model = _Model(coder, len(planes) - 1, codebook_size)
    for at in np.ndindex(planes.shape[1:]):
        planes[-1][at] = model.code(contexts_at(planes, *at), 0)
    return not coder.has_rest


def _bucket(seen: int) -> int:
    return seen if seen < 2 else 2 if seen < 4 else 3


def _first_weights(buckets: tuple[int, ...]) -> list[int]:
    trust = [TRUST[bucket] for bucket in buckets]
    total = sum(trust)
    return [each * MAX_TRUST // total for each in trust] if total > MAX_TRUST else trust


class _Model:
    """The counters and weights of plane q."""

    def __init__(self, coder: RangeEncoder | RangeDecoder, q: int, codebook_size: int) -> None:
        self._coder = coder
        self._size = codebook_size
        self._bits = max(1, (codebook_size - 1).bit_length())
        self._counters = Counters(q)
        self._weights: dict[tuple[int, ...], list[int]] = {}

    def code(self, contexts: list[int], code: int) -> int:
        """Codes one code; returns it."""
        self._counters.begin(contexts)
        for rest in reversed(range(self._bits)):
            counters = self._counters.next()
            bit = 0
            if (self._counters.node * 2 + 1 << rest) - (1 << self._bits) < self._size:
                bit = self._bit(counters, code >> rest & 1)
            self._counters.move(bit)
        return self._counters.node - (1 << self._bits)

    def _bit(self, counters: list[Counter], value: int) -> int:
        buckets = tuple(_bucket(counter.seen) for counter in counters)
        inputs = [counter.input for counter in counters]
        weights = self._weights.setdefault(buckets, _first_weights(buckets))
        one = squash(sum(map(int.__mul__, weights, inputs)) >> 16)
        value = self._coder.bit(one, value)
        error = (65536 if value else 0) - one
        for m, counter in enumerate(counters):
            weights[m] = limited(weights[m] + (inputs[m] * MIX_RATE * error >> 16))
            counter.learn(value)
        return value
