"""Reading a token dataset: its shards as one sequence of samples."""

from __future__ import annotations

import resource
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtok.errors import DataError
from vqtok.tokens.manifest import Manifest, read_manifest
from vqtok.tokens.packing import Codes
from vqtok.tokens.shard import ShardReader, in_range
from vqtok.tokens.writer import Sample

MAX_OPEN_SHARDS = max(128, min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8))
"""Shards a TokenReader keeps mapped, an open file each; the least recently used is closed first."""


class TokenReader:
    """A dataset folder (with its manifest) or a single shard, as one sequence of samples.

    Shards are opened when first needed. A damaged or missing shard or sample raises DataError when
    it is read; all others stay readable. Instances can be pickled and used after a fork.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.manifest: Manifest | None = None
        self._shards: OrderedDict[int, ShardReader] = OrderedDict()
        if self.path.is_dir():
            self.manifest = read_manifest(self.path)
            self.header = self.manifest.header
            counts = [shard.samples for shard in self.manifest.shards]
        else:
            self._shards[0] = ShardReader(self.path)
            self.header = self._shards[0].header
            counts = [len(self._shards[0])]
        self._starts = [0, *accumulate(counts)]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Sample:
        return self.read(index)

    def __iter__(self) -> Iterator[Sample]:
        return map(self.read, range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    @property
    def token_bytes(self) -> int:
        """Bytes that the codes of all samples take in the files."""
        if self.manifest is None:
            return self._shards[0].token_bytes
        return sum(shard.token_bytes for shard in self.manifest.shards)

    def read(self, index: int, num_codebooks: int | None = None) -> Sample:
        """See :meth:`ShardReader.read`; ``index`` counts over all shards."""
        shard, local = self._find(index)
        return shard.read(local, num_codebooks)

    def codes(self, index: int, num_codebooks: int | None = None) -> Codes:
        """See :meth:`ShardReader.codes`; ``index`` counts over all shards."""
        shard, local = self._find(index)
        return shard.codes(local, num_codebooks)

    def dims(self) -> NDArray[np.int64]:
        """See :meth:`ShardReader.dims`; of all shards, zeros for one that cannot be read."""
        tables = [np.zeros((0, len(self.header.dims)), np.int64)]
        for start, stop in pairwise(self._starts):
            if start < stop:
                try:
                    tables.append(self._find(start)[0].dims())
                except DataError:
                    tables.append(np.zeros((stop - start, len(self.header.dims)), np.int64))
        return np.concatenate(tables)

    def crcs(self, num_codebooks: int) -> NDArray[np.uint32]:
        """See :meth:`ShardReader.crcs`; of all shards, zeros for one that cannot be read."""
        tables = [np.zeros(0, np.uint32)]
        for start, stop in pairwise(self._starts):
            if start < stop:
                try:
                    tables.append(self._find(start)[0].crcs(num_codebooks))
                except DataError:
                    tables.append(np.zeros(stop - start, np.uint32))
        return np.concatenate(tables)

    def meta(self, index: int) -> dict[str, Any]:
        """See :meth:`ShardReader.meta`; ``index`` counts over all shards."""
        shard, local = self._find(index)
        return shard.meta(local)

    def _find(self, index: int) -> tuple[ShardReader, int]:
        index = in_range(index, len(self), str(self.path))
        number = bisect_right(self._starts, index) - 1
        shard = self._shards.get(number)
        if shard is None:
            shard = self._open(number)
        else:
            self._shards.move_to_end(number)
        return shard, index - self._starts[number]

    def _open(self, number: int) -> ShardReader:
        assert self.manifest is not None
        info = self.manifest.shards[number]
        shard = ShardReader(self.path / info.file, info, self.header)
        if len(shard) != info.samples:
            raise DataError(f"{info.file}: {len(shard)} samples, the manifest says {info.samples}")
        self._shards[number] = shard
        if len(self._shards) > MAX_OPEN_SHARDS:
            self._shards.popitem(last=False)
        return shard
