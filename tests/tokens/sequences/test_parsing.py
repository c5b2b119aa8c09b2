"""Sequences that models make: cut short, with wrong tokens, or nothing but noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqtok.tokens.sequences import PRESETS, Parsed, SequenceLayout, SizePrefix

SIZES = (8, 5)
DIMS = {"delay": (7, 1), "musicgen": (7, 1), "chameleon": (4, 3)}


def example(name: str, seed: int = 0):
    layout = PRESETS[name](SIZES, 50, *([DIMS[name]] if name == "chameleon" else []))
    rng = np.random.default_rng(seed)
    dims = DIMS.get(name, (4, 3))
    codes = np.stack([rng.integers(0, size, dims) for size in SIZES], -1)
    told = None if layout.tells_dims else dims
    return layout, codes, layout.tokens(codes), told


def check(layout: SequenceLayout, parsed: Parsed) -> None:
    """What holds of any parse."""
    assert parsed.codes.shape == parsed.known.shape
    assert parsed.codes.shape[-1] == layout.num_codebooks
    assert (parsed.codes >= 0).all()
    assert (parsed.codes < np.array(layout.codebook_sizes)).all()
    if not parsed.known.all() or not parsed.codes.size:
        assert parsed.problems


@pytest.mark.parametrize("name", PRESETS)
@given(data=st.data())
def test_any_cut_keeps_what_was_there(name, data):
    layout, codes, tokens, told = example(name)
    length = data.draw(st.integers(0, len(tokens) - 1))
    parsed = layout.parse(tokens[:length], told)
    check(layout, parsed)
    if layout.end is not None:
        assert parsed.problems
    if parsed.codes.shape == codes.shape:
        np.testing.assert_array_equal(parsed.codes[parsed.known], codes[parsed.known])
    else:  # a sequence that tells its dims by its length alone
        rows = len(parsed.codes)
        assert told is None
        assert layout.size is None or length < 5
        kept = parsed.known & (np.arange(parsed.known.shape[1]) < codes.shape[1])[:, None]
        inside = codes[:rows, : parsed.codes.shape[1]]
        np.testing.assert_array_equal(
            parsed.codes[:, : codes.shape[1]][kept[:, : codes.shape[1]]],
            inside[kept[:, : codes.shape[1]]],
        )


@pytest.mark.parametrize("name", PRESETS)
@given(data=st.data())
def test_any_change_is_survived(name, data):
    layout, _, tokens, told = example(name)
    change = st.tuples(st.sampled_from("sid"), st.integers(0, 99), st.integers(40, 100))
    edits = data.draw(st.lists(change, max_size=6))
    for kind, place, token in edits:
        at = place % max(1, len(tokens))
        if kind == "s" and len(tokens):
            tokens = tokens.copy()
            tokens[at] = token
        elif kind == "i":
            tokens = np.insert(tokens, at, token, axis=0)
        elif len(tokens):
            tokens = np.delete(tokens, at, axis=0)
    parsed = layout.parse(tokens, told)
    check(layout, parsed)
    if not parsed.problems:  # then it is the sequence of these codes, token for token
        np.testing.assert_array_equal(layout.tokens(parsed.codes), tokens)
    else:
        with pytest.raises(ValueError, match="malformed sequence"):
            layout.codes(tokens, told)


@pytest.mark.parametrize("name", PRESETS)
@given(data=st.data())
def test_noise_is_survived(name, data):
    layout, _, _, told = example(name)
    shape = (data.draw(st.integers(0, 40)), *([len(SIZES)] if layout.parallel else []))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    check(layout, layout.parse(rng.integers(45, layout.vocabulary_size + 3, shape), told))


def test_a_wrong_token_costs_one_code():
    layout, codes, tokens, _ = example("raster")
    tokens[5] = 40
    parsed = layout.parse(tokens)
    assert (~parsed.known).sum() == 1
    assert parsed.known.shape == codes.shape
    assert "such as 40" in parsed.problems[0]
    np.testing.assert_array_equal(parsed.codes[parsed.known], codes[parsed.known])


def test_an_unknown_code_is_the_one_before_it():
    layout = PRESETS["raster"]((8,), 0)
    tokens = layout.tokens(np.array([[3, 4], [5, 6]])[..., None])
    tokens[1] = 1000
    tokens[5] = 1000
    assert layout.parse(tokens).codes[..., 0].tolist() == [[4, 4], [5, 5]]


def test_damage_stays_in_its_row():
    layout, codes, tokens, _ = example("emu3")
    row = int(np.flatnonzero(tokens == layout.row_end)[1])
    parsed = layout.parse(np.delete(tokens, row - 2))
    assert parsed.problems == ("row 1 has 5 of 6 tokens", *parsed.problems[1:])
    np.testing.assert_array_equal(parsed.codes[[0, 2, 3]], codes[[0, 2, 3]])
    assert not parsed.known[1].all()


def test_text_inside_an_image_is_left_out():
    layout, codes, tokens, _ = example("raster")
    parsed = layout.parse(np.insert(tokens, 3, [7, 8, 9]))
    np.testing.assert_array_equal(parsed.codes, codes)
    assert parsed.problems == ("row 0 has 9 of 6 tokens",)


def test_an_image_cut_short_keeps_its_claimed_size():
    layout, codes, tokens, _ = example("emu3")
    parsed = layout.parse(tokens[:14])
    assert parsed.codes.shape == codes.shape
    assert 0 < parsed.known.sum() < codes.size


def test_codebooks_that_are_complete():
    layout = SequenceLayout(
        codebooks=PRESETS["flat"](SIZES, 10).codebooks, dims=(2, 2), order="flatten"
    )
    tokens = layout.tokens(np.zeros((2, 2, 2), int))
    assert [layout.parse(tokens[:n]).complete_codebooks for n in (2, 4, 7, 8)] == [0, 1, 1, 2]


def test_a_claimed_size_makes_no_memory():
    layout = PRESETS["emu3"]((8,), 0)
    said = layout.size.tokens((99999999, 99999999))
    parsed = layout.parse(np.array([0, *said, 16, 16, 2, 16, 16, 2, 3, 1]))
    assert parsed.codes.shape == (2, 2, 1)
    assert "99999999" in parsed.problems[0]


@pytest.mark.parametrize(
    "tokens", [[1, 12, 0], [1, 2, 3, 4, 13], [1, 10, 13], [1, 10, 3, 11, 3, 13], [0, 1, 11, 2, 13]]
)
def test_malformed_sizes(tokens):
    size = SizePrefix(first=0, separator=11, end=13)
    assert size.parse(tokens, 2)[0] is None


def test_a_size_other_than_the_rows():
    layout, codes, tokens, _ = example("emu3")
    wrong = np.concatenate([tokens[:1], layout.size.tokens((2, 3)), tokens[5:]])
    parsed = layout.parse(wrong)
    assert parsed.problems == ("4 rows instead of 2",)
    np.testing.assert_array_equal(parsed.codes, codes[:2])
    assert "it says dims [2, 3]" in layout.parse(wrong, (4, 3)).problems[0]


@pytest.mark.parametrize(
    "tokens", [np.zeros((2, 2), int), np.zeros(3), np.zeros((), int), np.array(["a"])]
)
def test_tokens_of_the_wrong_kind(tokens):
    with pytest.raises(ValueError, match="expected integers"):
        PRESETS["raster"]((8,), 0).parse(tokens)


def test_rows_of_another_width():
    with pytest.raises(ValueError, match="3 columns"):
        PRESETS["musicgen"]((8, 8), 0).parse(np.zeros((4, 3), int))
