"""A range coder in plain Python: what the native one does, byte for byte.

The encoder holds an interval [low, low + range) of 64-bit fractions of the stream's number. A
symbol narrows it in proportion to its frequency; whenever range < 2**56 the top byte of low is
final but for a carry. The stream is the shortest number in the last interval; the decoder reads
zeros beyond its end.
"""

from __future__ import annotations

LEAST_RANGE = 1 << 56
_MASK = (1 << 64) - 1


class RangeEncoder:
    """Symbols to bytes; see :class:`RangeDecoder` for the way back."""

    def __init__(self) -> None:
        self._low = 0
        self._range = _MASK
        self._bytes = bytearray()

    def symbol(self, below: int, frequency: int, total: int) -> None:
        """A symbol with ``below`` of the ``total`` frequency before it, total < 2**32."""
        unit = self._range // total
        self._add(unit * below)
        self._range = unit * frequency
        self._renormalise()

    def bit(self, one: int, value: int) -> int:
        """A bit that is 1 with probability ``one`` / 2**16, 0 < one < 2**16; returns it."""
        bound = (self._range >> 16) * one
        if value:
            self._range = bound
        else:
            self._add(bound)
            self._range -= bound
        self._renormalise()
        return value

    def finish(self) -> bytes:
        """The stream, without zeros at its end; nothing may be added afterwards."""
        self._add(LEAST_RANGE - 1)
        self._bytes.append(self._low >> 56)
        return bytes(self._bytes).rstrip(b"\0")

    def _add(self, part: int) -> None:
        self._low += part
        if self._low > _MASK:
            self._low &= _MASK
            at = len(self._bytes) - 1
            while self._bytes[at] == 255:
                self._bytes[at] = 0
                at -= 1
            self._bytes[at] += 1

    def _renormalise(self) -> None:
        while self._range < LEAST_RANGE:
            self._bytes.append(self._low >> 56)
            self._low = self._low << 8 & _MASK
            self._range <<= 8


class RangeDecoder:
    """Bytes to symbols. Any bytes decode to something."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 8
        self._offset = int.from_bytes(data[:8].ljust(8, b"\0"), "big")
        self._range = _MASK
        self._unit = 1

    def position(self, total: int) -> int:
        """Where in [0, total) the next symbol lies; to be followed by :meth:`take` of it."""
        self._unit = self._range // total
        return min(self._offset // self._unit, total - 1)

    def take(self, below: int, frequency: int) -> None:
        """The symbol at the last position is the one with these frequencies."""
        self._offset = self._offset - self._unit * below & _MASK
        self._range = self._unit * frequency
        self._renormalise()

    def bit(self, one: int, value: int) -> int:
        """A bit that is 1 with probability ``one`` / 2**16; ``value`` is of no account."""
        bound = (self._range >> 16) * one
        value = int(self._offset < bound)
        if value:
            self._range = bound
        else:
            self._offset -= bound
            self._range -= bound
        self._renormalise()
        return value

    @property
    def has_rest(self) -> bool:
        """Whether bytes are left over that no symbol depended on."""
        return self._position < len(self._data)

    def _renormalise(self) -> None:
        while self._range < LEAST_RANGE:
            byte = self._data[self._position] if self._position < len(self._data) else 0
            self._position += 1
            self._offset = (self._offset << 8 | byte) & _MASK
            self._range <<= 8
