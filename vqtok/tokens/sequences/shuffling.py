"""Random order without a list: where each of n places goes is computed, not stored."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 8
_CHUNK = 1 << 16


class Shuffle:
    """A random permutation of [0, n), evaluated at any places in O(1) memory.

    A Feistel network on pairs (left, right) of numbers below about sqrt(n) (Black and Rogaway,
    "Ciphers with arbitrary finite domains", 2002), walked until it lands inside [0, n).

    Args:
        count: n.
        key: which permutation; any tuple of integers.
    """

    def __init__(self, count: int, key: tuple[int, ...]) -> None:
        self.count = count
        self._left = max(1, math.isqrt(max(0, count - 1)) + 1)
        self._right = max(1, -(-count // self._left))
        words = np.random.SeedSequence([abs(word) for word in key]).generate_state(
            _ROUNDS, np.uint64
        )
        self._keys = [np.uint64(word) for word in words]

    def __call__(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where ``places`` int64 [m], each in [0, n), go: int64 [m], each in [0, n)."""
        result = np.empty(len(places), np.int64)
        for start in range(0, len(places), _CHUNK):
            result[start : start + _CHUNK] = self._walk(places[start : start + _CHUNK])
        return result

    def _walk(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        values = self._step(places.astype(np.uint64))
        outside = np.flatnonzero(values >= self.count)
        while len(outside):
            values[outside] = self._step(values[outside])
            outside = outside[values[outside] >= self.count]
        return values.astype(np.int64)

    def _step(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = np.divmod(values, np.uint64(self._right))
        for number, key in enumerate(self._keys):
            if number % 2:
                right = _add(right, left, key, self._right)
            else:
                left = _add(left, right, key, self._left)
        return left * np.uint64(self._right) + right


def _add(
    value: NDArray[np.uint64], other: NDArray[np.uint64], key: np.uint64, size: int
) -> NDArray[np.uint64]:
    """(value + hash of other) modulo size; value and size are below 2**32."""
    mixed = mix(other + key)
    mixed >>= np.uint64(32)
    mixed *= np.uint64(size)
    mixed >>= np.uint64(32)
    mixed += value
    np.subtract(mixed, np.uint64(size), out=mixed, where=mixed >= size)
    return mixed


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A 64-bit hash of each value (the finalizer of MurmurHash3)."""
    values = values ^ (values >> np.uint64(33))
    values *= np.uint64(0xFF51AFD7ED558CCD)
    values ^= values >> np.uint64(33)
    values *= np.uint64(0xC4CEB9FE1A85EC53)
    values ^= values >> np.uint64(33)
    return values
