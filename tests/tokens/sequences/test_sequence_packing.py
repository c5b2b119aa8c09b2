"""Documents into sequences, beside the plain way of doing it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqtok.tokens.sequences.packing import BLOCK, first_fit, packing_of

LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=2 * BLOCK)


def sequences_of(pack, lengths, length):
    """All sequences as lists of (document, start, stop)."""
    packing = packing_of(pack, length)
    rows = np.zeros(-(-len(lengths) // BLOCK) * BLOCK, np.int64)
    rows[: len(lengths)] = lengths
    blocks = rows.reshape(-1, BLOCK)
    table = np.concatenate([[0], np.cumsum(packing.weigh(blocks))])
    return [
        [
            (piece.place, piece.start, piece.stop)
            for piece in packing.pieces(number, table, lambda block: blocks[block])
        ]
        for number in range(packing.sequences(int(table[-1])))
    ]


@settings(max_examples=30)
@given(LENGTHS, st.integers(1, 60))
def test_split_is_the_long_line_cut(lengths, length):
    line = [(place, at) for place, size in enumerate(lengths) for at in range(size)]
    expected = [line[start : start + length] for start in range(0, len(line), length)]
    found = sequences_of("split", lengths, length)
    opened = [
        [(place, at) for place, start, stop in pieces for at in range(start, stop)]
        for pieces in found
    ]
    assert opened == expected


@settings(max_examples=20)
@given(LENGTHS, st.integers(5, 60))
def test_whole_has_every_token_once_and_cuts_only_long_documents(lengths, length):
    found = sequences_of("whole", lengths, length)
    seen = [(p, at) for pieces in found for p, a, b in pieces for at in range(a, b)]
    assert sorted(seen) == [(p, at) for p, size in enumerate(lengths) for at in range(size)]
    for pieces in found:
        assert 0 < sum(stop - start for _, start, stop in pieces) <= length
        assert pieces == sorted(pieces)
        for place, start, stop in pieces:
            whole = start == 0 and stop == lengths[place]
            assert whole or (lengths[place] > length and (stop - start == length or start))


@settings(max_examples=20)
@given(LENGTHS, st.integers(1, 60))
def test_single_is_one_document_each(lengths, length):
    found = sequences_of("single", lengths, length)
    expected = [[(p, 0, min(length, size))] for p, size in enumerate(lengths) if size]
    assert found == expected


def plain_first_fit(sizes, capacity):
    spaces, bins = [], {}
    for thing in sorted(range(len(sizes)), key=lambda thing: -sizes[thing]):
        if sizes[thing] == 0:
            bins[thing] = -1
            continue
        number = next((n for n, space in enumerate(spaces) if space >= sizes[thing]), len(spaces))
        if number == len(spaces):
            spaces.append(capacity)
        spaces[number] -= sizes[thing]
        bins[thing] = number
    names = {-1: -1}
    for thing in range(len(sizes)):
        names.setdefault(bins[thing], len(names) - 1)
    return [names[bins[thing]] for thing in range(len(sizes))]


@given(st.lists(st.lists(st.integers(0, 12), min_size=9, max_size=9), min_size=1, max_size=4))
def test_first_fit_is_first_fit(rows):
    expected = [plain_first_fit(row, 12) for row in rows]
    assert first_fit(np.array(rows), 12).tolist() == expected


@pytest.mark.parametrize(("pack", "length"), [("tight", 4), ("split", 0), ("split", 1.5)])
def test_refused(pack, length):
    with pytest.raises(ValueError, match="must be"):
        packing_of(pack, length)
