"""Token datasets as training sequences of one length, read at random."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtok.errors import DataError
from vqtok.tokens.sequences.layout import SequenceLayout
from vqtok.tokens.sequences.mixture import Mixture, Visits
from vqtok.tokens.sequences.packing import BLOCK, packing_of
from vqtok.tokens.sequences.source import Documents, TokenSource
from vqtok.tokens.sequences.vocabulary import Vocabulary

_TABLE_BLOCKS = 512
_KEPT_EPOCHS = 2

Item = dict[str, NDArray[Any]]


class DamagedSampleWarning(UserWarning):
    """A sample could not be read and is padding instead."""


@dataclass(frozen=True)
class Account:
    """What an epoch holds: exact, nothing is read for it.

    ``documents``: visits of samples; ``tokens``: in sequences; ``cut``: tokens left out ("single"
    only); ``padding``: places in sequences that no document fills; ``damaged``: visits of samples
    whose shape is damaged, left out.
    """

    sequences: int
    documents: int
    tokens: int
    cut: int
    padding: int
    damaged: int


class TokenDataset:
    """Map-style: ``dataset[i]`` is sequence i of the current epoch, ``len(dataset)`` their number.

    An item is a dict: ``tokens`` int64 [length] (or [length, Q] of a parallel layout), ``segments``
    int32 [length]: 1, 2, ... for the documents in the sequence, 0 for padding, for attention and
    loss masks; ``positions`` int32 [length]: from 0 in each document's part. The order is shuffled
    already, anew in each epoch; any process computes the same one, in memory of 4 bytes per sample,
    whatever the size of an epoch. :class:`vqtok.TokenStream` makes batches of it for workers and
    ranks. torch's ``DataLoader`` takes either.

    Args:
        sources: token datasets and how often each is visited.
        length: tokens of a sequence.
        vocabulary: with the layouts of the sources; or one layout for them all, without text or
            tokens around documents.
        pack: "split": documents end to end, cut every ``length`` tokens; "whole": documents kept
            whole where they fit, with padding; "single": one document per sequence.
        seed: of the order and of windows, in [0, 2**63).
        shuffle: False for the order of the sources.
        damaged: "raise" DataError for a damaged sample, or "pad": padding instead, with a
            :class:`DamagedSampleWarning`.

    Raises:
        ValueError: arguments, or sources that don't fit the vocabulary.
        DataError: a dataset that cannot be read, or no samples at all.
    """

    def __init__(
        self,
        sources: Sequence[TokenSource],
        length: int,
        vocabulary: Vocabulary | SequenceLayout,
        *,
        pack: str = "split",
        seed: int = 0,
        shuffle: bool = True,
        damaged: str = "raise",
    ) -> None:
        if damaged not in ("raise", "pad"):
            raise ValueError(f'damaged must be "raise" or "pad", got {damaged!r}')
        if type(seed) is not int or not 0 <= seed < 1 << 63:
            raise ValueError(f"seed must be an integer in [0, 2**63), got {seed!r}")
        if not sources:
            raise ValueError("there are no sources")
        self.length, self.seed = length, seed
        self.vocabulary = vocabulary
        self.damaged = damaged
        self.pad = vocabulary.pad or 0
        self._packing = packing_of(pack, length)
        self._documents = [Documents(source, vocabulary) for source in sources]
        counts = [len(documents) for documents in self._documents]
        if not sum(counts):
            raise DataError("no samples in " + ", ".join(str(source.path) for source in sources))
        # An empty source has no visits.
        self._mixture = Mixture(counts, [source.repeat for source in sources], seed, shuffle)
        for source, count, visits in zip(sources, counts, self._mixture.visits, strict=True):
            if count and not visits:
                raise ValueError(
                    f"{source.path}: an epoch of {source.repeat} times {count} samples has none"
                )
        self._first = np.cumsum([0, *counts])
        self._lengths = np.concatenate([documents.lengths for documents in self._documents])
        if not self._lengths.any():
            raise DataError(
                "all samples are damaged in " + ", ".join(str(source.path) for source in sources)
            )
        self._shuffle, self._pack = shuffle, pack
        self.epoch = 0
        self._tables: dict[int, NDArray[np.int64]] = {}
        self._sequences: dict[int, int] = {}
        self._steps = np.arange(length, dtype=np.int32)
        self._block: tuple[tuple[int, int], Visits, NDArray[np.int64]] | None = None
        self._last: tuple[tuple[int, int], NDArray[np.int64] | None] | None = None

    def __len__(self) -> int:
        return self.sequences(self.epoch)

    def __getitem__(self, index: int) -> Item:
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"sequence {index} of {count}")
        return self.read(self.epoch, index % count)

    def set_epoch(self, epoch: int) -> None:
        """The epoch of ``dataset[i]`` from now on; before workers start, which have copies."""
        if epoch < 0:
            raise ValueError(f"epoch must not be negative, got {epoch}")
        self.epoch = epoch

    def sequences(self, epoch: int) -> int:
        """Sequences of an epoch (it varies where a repeat is no whole number)."""
        if epoch not in self._sequences:  # kept for all epochs: a stream counts from its first
            self._sequences[epoch] = self._packing.sequences(int(self._table(epoch)[-1]))
        return self._sequences[epoch]

    def account(self, epoch: int) -> Account:
        """What an epoch holds."""
        lengths = np.concatenate([self._length_rows(epoch, b) for b in self._block_groups()])
        inside = lengths
        if self._pack == "single":
            inside = np.minimum(lengths, self.length)
        sequences, tokens = self.sequences(epoch), int(inside.sum())
        return Account(
            sequences=sequences,
            documents=int((lengths > 0).sum()),
            tokens=tokens,
            cut=int(lengths.sum()) - tokens,
            padding=sequences * self.length - tokens,
            damaged=len(self._mixture) - int((lengths > 0).sum()),
        )

    def read(self, epoch: int, index: int) -> Item:
        """Sequence ``index`` of ``epoch``; see the class."""
        table = self._table(epoch)
        item = self.padding()
        at = 0
        pieces = self._packing.pieces(index, table, lambda block: self._visits(epoch, block)[1])
        for segment, piece in enumerate(pieces, 1):
            size = piece.stop - piece.start
            tokens = self._document(epoch, piece.place)
            if tokens is not None:
                item["tokens"][at : at + size] = tokens[piece.start : piece.stop]
                item["segments"][at : at + size] = segment
                item["positions"][at : at + size] = self._steps[:size]
            at += size
        return item

    def padding(self) -> Item:
        """A sequence of nothing but padding."""
        layout = self._documents[0].layout
        shape = (self.length, layout.num_codebooks) if layout.parallel else (self.length,)
        return {
            "tokens": np.full(shape, self.pad, np.int64),
            "segments": np.zeros(self.length, np.int32),
            "positions": np.zeros(self.length, np.int32),
        }

    @cached_property
    def fingerprint(self) -> str:
        """Of everything that decides which tokens come when: equal means equal streams.

        Of captions it holds the metadata that they are made of, and their lengths.
        """
        sources = [(float(each.source.repeat), each.window) for each in self._documents]
        told: dict[str, Any] = {
            "sources": sources,
            "tokenizers": [each.reader.header.to_json() for each in self._documents],
            "vocabulary": self.vocabulary.to_json(),
            "length": self.length,
            "pack": self._pack,
            "seed": self.seed,
            "shuffle": self._shuffle,
        }
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
        digest.update(self._lengths.tobytes())
        for each in self._documents:
            digest.update(each.reader.crcs(each.layout.num_codebooks).tobytes())
        return digest.hexdigest()

    def _document(self, epoch: int, place: int) -> NDArray[np.int64] | None:
        """Tokens of the document at a place, None for a damaged one; the last one is kept."""
        if self._last is not None and self._last[0] == (epoch, place):
            return self._last[1]
        visits, _ = self._visits(epoch, place // BLOCK)
        index = place % BLOCK
        source, sample = int(visits.source[index]), int(visits.sample[index])
        documents = self._documents[source]
        tokens: NDArray[np.int64] | None
        try:
            tokens = documents.read(sample, int(visits.turn[index]), self.seed)
            if len(tokens) != documents.lengths[sample]:
                raise DataError(
                    f"{documents.source.path}: sample {sample} has {len(tokens)} tokens instead of "
                    f"{documents.lengths[sample]}: its dataset or caption changed"
                )
        except DataError as error:
            if self.damaged == "raise":
                raise
            warnings.warn(f"padding instead of a sample: {error}", DamagedSampleWarning, 2)
            tokens = None
        self._last = ((epoch, place), tokens)
        return tokens

    def _visits(self, epoch: int, block: int) -> tuple[Visits, NDArray[np.int64]]:
        """The visits of a block and the lengths of their documents; the last block is kept."""
        if self._block is None or self._block[0] != (epoch, block):
            places = np.arange(block * BLOCK, min((block + 1) * BLOCK, len(self._mixture)))
            visits = self._mixture(epoch, places)
            self._block = ((epoch, block), visits, self._lengths_of(visits))
        return self._block[1:]

    def _lengths_of(self, visits: Visits) -> NDArray[np.int64]:
        return self._lengths[self._first[visits.source] + visits.sample].astype(np.int64)

    def _table(self, epoch: int) -> NDArray[np.int64]:
        """What comes before each block of the epoch, and last the total: int64 [blocks + 1]."""
        if epoch not in self._tables:
            weights = [
                self._packing.weigh(self._length_rows(epoch, blocks))
                for blocks in self._block_groups()
            ]
            while len(self._tables) >= _KEPT_EPOCHS:
                del self._tables[min(self._tables)]
            self._tables[epoch] = np.cumsum(np.concatenate([[0], *weights]))
        return self._tables[epoch]

    def _block_groups(self) -> list[range]:
        blocks = -(-len(self._mixture) // BLOCK)
        return [
            range(start, min(start + _TABLE_BLOCKS, blocks))
            for start in range(0, blocks, _TABLE_BLOCKS)
        ]

    def _length_rows(self, epoch: int, blocks: range) -> NDArray[np.int64]:
        """Lengths [blocks, BLOCK] of an epoch's documents in order, 0 after the last one."""
        rows = np.zeros(len(blocks) * BLOCK, np.int64)
        places = np.arange(blocks.start * BLOCK, min(blocks.stop * BLOCK, len(self._mixture)))
        rows[: len(places)] = self._lengths_of(self._mixture(epoch, places))
        return rows.reshape(len(blocks), BLOCK)
