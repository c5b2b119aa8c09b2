"""Sequence layouts: round trips, a plain oracle, JSON, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqtok.tokens.sequences import PRESETS, CodebookTokens, SequenceLayout, SizePrefix


@st.composite
def layouts(draw):
    """Any valid layout of spans in a random order, tables and shared codebooks included."""
    Q = draw(st.integers(1, 4))
    sizes = draw(st.lists(st.integers(1, 9), min_size=Q, max_size=Q))
    order = draw(st.sampled_from(["interleave", "flatten", "delay"]))
    free = iter(draw(st.permutations(range(100))))
    shared = draw(st.booleans())
    if shared:
        first = 200
        books = tuple(CodebookTokens(size, first) for size in sizes)
    else:
        books = tuple(
            CodebookTokens(size, table=tuple(next(free) for _ in range(size)))
            if draw(st.booleans())
            else CodebookTokens(size, 200 + 10 * q)
            for q, size in enumerate(sizes)
        )

    def marker():
        return next(free) if draw(st.booleans()) else None

    options = {}
    if order == "delay":
        options["pad"] = next(free)
        delays = draw(st.lists(st.integers(0, 4), min_size=Q, max_size=Q))
        options["delays"] = tuple(delay - min(delays) for delay in delays)
    else:
        options["row_end"] = marker()
    if draw(st.booleans()):
        style = draw(st.sampled_from(["digits", "number"]))
        options["size"] = SizePrefix(
            style=style,
            first=300,
            separator=next(free) if style == "digits" else None,
            largest=12 if style == "number" else 0,
            end=next(free) if style == "digits" else marker(),
        )
    axes = draw(st.integers(1, 3))
    dims = tuple(draw(st.integers(1, 12)) for _ in range(axes))
    layout = SequenceLayout(
        codebooks=books,
        dims=tuple(size if draw(st.booleans()) else None for size in dims),
        order=order,
        parallel=order != "flatten" and draw(st.booleans()),
        begin=marker(),
        content_end=marker(),
        end=marker(),
        **options,
    )
    return layout, dims


def random_codes(layout, dims, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, size, dims) for size in layout.codebook_sizes], -1)


def oracle(layout, codes):
    """LAYOUT.md, word by word."""
    Q, dims = codes.shape[-1], codes.shape[:-1]

    def token(q, position):
        book, code = layout.codebooks[q], int(codes[np.unravel_index(position, dims)][q])
        return book.table[code] if book.table else book.first + code

    steps, markers = [], lambda *names: [m for m in names if m is not None]
    count, width = int(np.prod(dims)), dims[-1]
    if layout.order == "interleave":
        for position in range(count):
            steps.append([token(q, position) for q in range(Q)])
            if layout.row_end is not None and position % width == width - 1:
                steps.append(layout.row_end)
    elif layout.order == "flatten":
        for q in range(Q):
            for position in range(count):
                steps.append([token(q, position)])
                if layout.row_end is not None and position % width == width - 1:
                    steps.append(layout.row_end)
    else:
        for s in range(count + max(layout.delays)):
            at = [s - delay for delay in layout.delays]
            steps.append([token(q, p) if 0 <= p < count else layout.pad for q, p in enumerate(at)])
    head = markers(layout.begin)
    if layout.size is not None:
        size = layout.size
        if size.style == "number":
            head += [size.first + n for n in dims]
        else:
            words = [[size.first + int(digit) for digit in str(n)] for n in dims]
            head += words[0] + [t for word in words[1:] for t in (size.separator, *word)]
        head += markers(size.end)
    steps = head + steps + markers(layout.content_end, layout.end)
    if layout.parallel:
        return [step if isinstance(step, list) else [step] * Q for step in steps]
    return [t for step in steps for t in (step if isinstance(step, list) else [step])]


@given(layouts(), st.integers(0, 99))
def test_round_trip_of_any_layout(case, seed):
    layout, dims = case
    codes = random_codes(layout, dims, seed)
    tokens = layout.tokens(codes)
    assert tokens.tolist() == oracle(layout, codes)
    assert tokens.max() < layout.vocabulary_size
    assert layout.length(dims) == len(tokens)
    assert layout.owns(tokens).all()
    told = None if layout.tells_dims else dims
    again = layout.codes(tokens, told)
    np.testing.assert_array_equal(again, codes)
    assert again.dtype == np.int64
    assert layout.parse(tokens, dims).problems == ()
    assert layout.parse(tokens, dims).complete_codebooks == layout.num_codebooks


@given(layouts())
def test_json_round_trip(case):
    layout, _ = case
    assert SequenceLayout.from_json(json.loads(json.dumps(layout.to_json()))) == layout


@given(layouts(), st.lists(st.lists(st.integers(1, 12), min_size=3, max_size=3), max_size=5))
def test_lengths_of_many(case, rows):
    layout, _ = case
    axes = len(layout.dims)
    table = np.array(rows, np.int64).reshape(-1, 3)[:, :axes]
    expected = [int(layout.length(row)) for row in table]
    assert layout.length(table).tolist() == expected


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("sizes", [(16,), (8, 16, 5)])
def test_presets_fill_their_span(name, sizes):
    sound = name in ("delay", "musicgen")
    dims = (11, 1) if sound else (32, 32) if name == "chameleon" else (3, 4)
    layout = PRESETS[name](sizes, 1000)
    codes = random_codes(layout, dims)
    tokens = layout.tokens(codes)
    assert tokens.tolist() == oracle(layout, codes)
    np.testing.assert_array_equal(layout.codes(tokens, dims), codes)
    every = np.arange(1000, layout.vocabulary_size)
    assert layout.owns(every).all()
    assert not layout.owns(np.array([999, layout.vocabulary_size])).any()


def test_the_released_emu3():
    """The published special tokens, digits of its text tokenizer, 32,768 codes at the end."""
    layout = SequenceLayout(
        codebooks=(CodebookTokens(32768, 151854),),
        begin=151852,
        size=SizePrefix(first=15, separator=9, end=151851),
        row_end=151846,
        content_end=151847,
        end=151853,
    )
    assert layout.vocabulary_size == 184622
    tokens = layout.tokens(np.array([[[0], [1]], [[2], [32767]]]))
    assert tokens.tolist() == [
        *(151852, 17, 9, 17, 151851),
        *(151854, 151855, 151846, 151856, 184621, 151846),
        *(151847, 151853),
    ]


def test_musicgen_steps():
    layout = PRESETS["musicgen"]((4, 4, 4), 0)
    codes = np.array([[[0, 1, 2]], [[3, 0, 1]]])
    assert layout.tokens(codes).tolist() == [
        [4, 4, 4],
        [0, 4, 4],
        [3, 1, 4],
        [4, 0, 2],
        [4, 4, 1],
    ]


BOOK = CodebookTokens(8, 100)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codebooks": ()}, "at least one codebook"),
        ({"dims": (0, 1)}, "dims must be"),
        ({"dims": ()}, "dims must be"),
        ({"order": "spiral"}, "order must be"),
        ({"begin": 3, "end": 3}, "both begin and end"),
        ({"begin": 103}, "a code of codebook 0"),
        ({"begin": -1}, "must be a token"),
        ({"begin": True}, "must be a token"),
        ({"pad": 1}, "belong to order"),
        ({"order": "delay"}, "needs a pad"),
        ({"order": "delay", "pad": 1, "row_end": 2}, "no row_end"),
        ({"order": "delay", "pad": 1, "delays": (1,)}, "one of them 0"),
        ({"order": "delay", "pad": 1, "delays": (0, 1)}, "delays must be 1"),
        ({"order": "delay", "pad": 1, "delays": (0, 2**40), "codebooks": (BOOK, BOOK)}, "delays"),
        ({"order": "delay", "pad": 1, "end": 1}, "both"),
        ({"order": "flatten", "parallel": True}, "parallel"),
        ({"size": SizePrefix(first=0, separator=11, end=12), "end": 12}, "both"),
        ({"size": SizePrefix(first=0, separator=11, end=12), "end": 5}, "also says a size"),
        ({"size": SizePrefix(first=95, separator=11, end=12)}, "also say a size"),
    ],
)
def test_refused_layouts(options, message):
    with pytest.raises(ValueError, match=message):
        SequenceLayout(**{"codebooks": (BOOK,), **options})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "size in"),
        ((4, -1), "would be tokens"),
        ((4, 2**31 - 3), "would be tokens"),
        ((2, 0, (5, 5)), "twice"),
        ((3, 0, (5, 6)), "3 tokens"),
        ((1, 0, (2**31,)), "would be tokens"),
        ((4, "x"), "first must be a token"),
        ((4, None), "first must be a token"),
    ],
)
def test_refused_codebooks(arguments, message):
    with pytest.raises(ValueError, match=message):
        CodebookTokens(*arguments)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "x"},
        {"format_version": 2},
        {"colour": 1},
        {"codebooks": {}},
        {"codebooks": [{"size": 4}]},
        {"codebooks": [{"size": 4, "first": 0, "x": 1}]},
        {"codebooks": [{"size": "4", "first": 0}]},
        {"codebooks": [{"size": 4, "first": None}]},
        {"codebooks": [{"size": 2, "first": 0, "table": [100, 101]}]},
        {"dims": 3},
        {"dims": [1.5]},
        {"order": []},
        {"begin": "x"},
        {"size": []},
        {"size": {"style": "digits"}},
        {"size": {"style": "roman", "first": 1}},
        {"size": {"first": 1, "separator": "x", "end": 2}},
        {"size": {"first": 1, "colour": 2}},
    ],
)
def test_refused_json(change):
    value = {**PRESETS["raster"]((4,), 0).to_json(), **change}
    with pytest.raises(ValueError, match=r"\w"):
        SequenceLayout.from_json(value)


@pytest.mark.parametrize(
    "codes",
    [
        np.zeros((2, 3), int),
        np.zeros((2, 3, 2), int),
        np.zeros((2, 0, 1), int),
        np.zeros((2, 3, 1)),
        np.full((2, 3, 1), 8),
        np.full((2, 3, 1), -1),
        np.zeros((4, 3, 1), int),
    ],
)
def test_refused_codes(codes):
    layout = PRESETS["flat"]((8,), 0, (2, None))
    with pytest.raises(ValueError, match="codes"):
        layout.tokens(codes)


def test_dims_that_nothing_tells():
    layout = PRESETS["flat"]((8,), 0)
    tokens = layout.tokens(np.zeros((2, 3, 1), int))
    assert not layout.tells_dims
    with pytest.raises(ValueError, match="give dims"):
        layout.codes(tokens)
    with pytest.raises(ValueError, match="dims are"):
        layout.codes(tokens, (2,))
    assert layout.codes(tokens, (3, 2)).shape == (3, 2, 1)


def test_a_size_that_cannot_be_said():
    size = SizePrefix(style="number", first=0, largest=4)
    layout = SequenceLayout(codebooks=(BOOK,), size=size)
    with pytest.raises(ValueError, match="beyond"):
        layout.tokens(np.zeros((5, 1, 1), int))


def test_tables_of_tokens_far_apart():
    """They take memory for their codes, not for what lies between."""
    table = (2**31 - 1, 7, 0, 2**30)
    book = CodebookTokens(4, table=table)
    tokens = np.array([[0, 7, 2**30, 2**31 - 1], [1, -5, 2**31 + 4, 2**62]])
    assert book.codes(tokens).tolist() == [[2, 1, 3, 0], [-1, -1, -1, -1]]
    assert SequenceLayout(codebooks=(book,), begin=5).vocabulary_size == 2**31


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.uint64])
def test_small_integers_do_not_wrap(dtype):
    books = (CodebookTokens(128, 100), CodebookTokens(2, table=(9, 8)))
    layout = SequenceLayout(codebooks=books, dims=(None,))
    codes = np.array([[127, 1], [0, 0]], dtype)
    tokens = layout.tokens(codes)
    assert tokens.tolist() == [227, 8, 100, 9]
    assert (layout.codes(tokens) == codes).all()
    assert books[0].tokens(codes).dtype == np.int64
