"""Where the bytes of each sample lie in a shard, as its index says; nothing is believed."""

from __future__ import annotations

import mmap
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vqtok.errors import DataError
from vqtok.tokens.packing import Packing
from vqtok.tokens.writer import MAX_META


class Places:
    """The index of a shard: offsets and shapes, each checked when a sample is looked for.

    What a sample's own entries say is compared with its neighbours', so that samples cannot
    overlap, and a damaged entry costs its own sample alone.

    Args:
        name: of the file, for messages.
        data: the file.
        index: the tensors ``offsets``, ``meta_offsets``, ``shape`` and, if the tier has them,
            ``plane_sizes``.
        meta: where in ``data`` the metadata begin and end.
        token_bytes: bytes of the token tensor.
    """

    def __init__(
        self,
        name: str,
        data: mmap.mmap,
        index: Mapping[str, NDArray[np.int64]],
        meta: tuple[int, int],
        token_bytes: int,
        packing: Packing,
    ) -> None:
        self.name = name
        self.shape = index["shape"]
        self.token_bytes = token_bytes
        self._data = data
        self._offsets, self._meta_offsets = index["offsets"], index["meta_offsets"]
        self._sizes = index.get("plane_sizes") if packing.has_sizes else None
        self._meta_begin, self._meta_end = meta
        self._packing = packing

    def __len__(self) -> int:
        return len(self.shape)

    def codes(self, index: int) -> tuple[tuple[int, ...], int, list[int]]:
        """dims, first byte, and plane ends of a sample, all inside the token tensor.

        The length follows from the sample's own shape, so a damaged neighbour does no harm; a start
        that neither neighbour confirms is refused, which rules out samples that overlap.
        """
        dims = tuple(self.shape[index].tolist())
        if min(dims) < 1:
            raise self.damage(index, f"its shape is {list(dims)}")
        ends = self._ends(index, dims)
        start, following = self._offsets[index : index + 2].tolist()
        start *= self._packing.unit
        if not 0 <= start <= self.token_bytes - ends[-1]:
            raise self.damage(
                index,
                f"codes of shape {list(dims)} at byte {start} do not fit into the "
                f"{self.token_bytes} bytes of codes",
            )
        if start + ends[-1] == following * self._packing.unit:
            return dims, start, ends
        previous_end = self._end_by_size(index - 1) if index else 0
        if start != previous_end:
            raise self.damage(index, "its codes overlap another sample's or leave a gap")
        return dims, start, ends

    def meta_line(self, index: int) -> bytes:
        """The metadata of a sample, with the newline at their end."""
        begin, follower = self._meta_offsets[index : index + 2].tolist()
        begin += self._meta_begin
        if not self._meta_begin <= begin < self._meta_end:
            raise self.damage(index, f"its metadata start at byte {begin - self._meta_begin}")
        newline = self._data.find(b"\n", begin, min(begin + MAX_META, self._meta_end))
        if newline < 0:
            raise self.damage(index, "its metadata do not end")
        confirmed = begin == self._meta_begin or self._data[begin - 1] == 0x0A
        if not confirmed and follower + self._meta_begin != newline + 1:
            raise self.damage(index, "its metadata start inside another sample's")
        return self._data[begin : newline + 1]

    def row(self, index: int) -> bytes:
        """A sample's rows of ``shape`` and ``plane_sizes``, which its checksums begin with."""
        row: bytes = self.shape[index].tobytes()
        return row if self._sizes is None else row + self._sizes[index].tobytes()

    def dims(self, bits_per_position: int) -> NDArray[np.int64]:
        """Dims of all samples: int64 [N, d], zeros where they are damaged beyond doubt.

        ``bits_per_position``: of the codes of all codebooks.
        """
        dims = self.shape.astype(np.int64)
        bits = dims.prod(axis=1, dtype=np.float64) * bits_per_position
        room = np.diff(self._offsets) * float(8 * self._packing.unit)
        if self._sizes is not None:  # coded, in as little as that
            room *= 64
        for index in np.flatnonzero((dims < 1).any(axis=1) | (bits > room) | (room <= 0)).tolist():
            try:
                self.codes(index)
            except DataError:  # noqa: PERF203
                dims[index] = 0
        return dims

    def problems(self) -> list[tuple[int | None, str]]:
        """(sample, message) wherever samples do not follow one another without gaps.

        The sample is None for the ends of the token and metadata tensors.
        """
        problems: list[tuple[int | None, str]] = []
        for name, offsets, size in (
            ("offsets", self._offsets, self.token_bytes // self._packing.unit),
            ("meta_offsets", self._meta_offsets, self._meta_end - self._meta_begin),
        ):
            if int(offsets[0]) != 0:
                problems.append((0, f"{name} start at {int(offsets[0])}, not 0"))
            if int(offsets[-1]) != size:
                problems.append((None, f"{name} end at {int(offsets[-1])}, not at {size}"))
        for index in range(len(self)):
            try:
                _, start, ends = self.codes(index)
                line = self.meta_line(index)
            except DataError:
                continue  # reading it reports it
            if (start + ends[-1]) != int(self._offsets[index + 1]) * self._packing.unit:
                problems.append((index, "the next sample's codes do not start where its own end"))
            if int(self._meta_offsets[index]) + len(line) != int(self._meta_offsets[index + 1]):
                problems.append((index, "the next sample's metadata do not follow its own"))
        return problems

    def damage(self, index: int, message: str) -> DataError:
        """What to raise about a sample."""
        return DataError(f"{self.name}: sample {index}: {message}")

    def _ends(self, index: int, dims: tuple[int, ...]) -> list[int]:
        """Where the planes of a sample end; DataError when they cannot be so long."""
        sizes = [] if self._sizes is None else self._sizes[index].tolist()
        try:
            return self._packing.ends(dims, sizes)
        except ValueError as error:
            raise self.damage(index, str(error)) from error

    def _end_by_size(self, index: int) -> int:
        """Where the codes of a sample end by its own entries, -1 when these cannot be."""
        try:
            ends = self._ends(index, tuple(self.shape[index].tolist()))
        except DataError:
            return -1
        return int(self._offsets[index]) * self._packing.unit + ends[-1]
