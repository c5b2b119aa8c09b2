"""One vocabulary for several modalities: documents, what models make of them, files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqtok.errors import DataError
from vqtok.tokens.sequences import (
    PRESETS,
    CodebookTokens,
    SequenceLayout,
    SizePrefix,
    Vocabulary,
)

VOCABULARY = Vocabulary.build({"photo": ("raster", (8,)), "sound": ("delay", (6, 6))})


def codes_of(name: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if name == "photo":
        return rng.integers(0, 8, (*rng.integers(1, 5, 2), 1))
    return rng.integers(0, 6, (rng.integers(1, 5), 1, 2))


PARTS = st.lists(
    st.one_of(
        st.text(min_size=1).filter(lambda text: text.encode("utf-8", "replace").decode() == text),
        st.tuples(st.sampled_from(["photo", "sound"]), st.integers(0, 99)),
    ),
    max_size=5,
)


@given(PARTS)
def test_documents_come_back(parts):
    parts = [part if isinstance(part, str) else (part[0], codes_of(*part)) for part in parts]
    tokens = VOCABULARY.tokens(parts)
    assert tokens.min() >= 0
    assert tokens.max() < VOCABULARY.size
    assert (tokens[0], tokens[-1]) == (VOCABULARY.begin, VOCABULARY.end)
    joined = []  # text next to text is one text
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    segments = VOCABULARY.parse(tokens)
    assert len(segments) == len(joined)
    for segment, part in zip(segments, joined, strict=True):
        assert segment.problems == ()
        if isinstance(part, str):
            assert (segment.name, segment.text) == ("text", part)
        else:
            assert segment.name == part[0]
            np.testing.assert_array_equal(segment.parsed.codes, part[1])


@given(st.lists(st.integers(-3, VOCABULARY.size + 3), max_size=60))
def test_noise_is_taken_apart_without_gaps(tokens):
    tokens = np.array(tokens, np.int64)
    covered = np.zeros(len(tokens), int)
    for segment in VOCABULARY.parse(tokens):
        covered[segment.start : segment.stop] += 1
        assert segment.name in ("photo", "sound", "text") or segment.problems
    silent = np.isin(tokens, [VOCABULARY.pad, VOCABULARY.begin, VOCABULARY.end])
    np.testing.assert_array_equal(covered, ~silent)


def test_a_generation_cut_short():
    photo = np.arange(6).reshape(2, 3, 1)
    tokens = VOCABULARY.tokens(["a cat", ("photo", photo)])[:-5]
    text, image = VOCABULARY.parse(tokens)
    assert text.text == "a cat"
    assert image.parsed.codes.shape == (2, 3, 1)
    assert "cut short" in image.problems[0]


def test_an_image_in_an_image():
    photo = VOCABULARY.layouts["photo"].tokens(np.zeros((2, 2, 1), int))
    first, second = VOCABULARY.parse(np.concatenate([photo[:3], photo]))
    assert first.problems
    assert not second.problems


def test_text_that_is_not_utf8():
    (segment,) = VOCABULARY.parse(np.array([0xC3, 0x28]))
    assert segment.problems == ("it is not UTF-8",)


def test_sizes_said_in_text():
    digits = SizePrefix(first=ord("0"), separator=ord("*"), end=300)
    book = (CodebookTokens(8, 310),)
    layout = SequenceLayout(codebooks=book, begin=301, size=digits, end=302)
    vocabulary = Vocabulary(size=318, pad=303, text=range(256), layouts={"photo": layout})
    tokens = vocabulary.tokens(["3*2 pixels", ("photo", np.zeros((3, 2, 1), int)), "2"])
    assert [segment.name for segment in vocabulary.parse(tokens)] == ["text", "photo", "text"]


def test_tokens_of_another_text_tokenizer():
    vocabulary = Vocabulary.build({"photo": ("flat", (8,), (2, 2))}, text_size=1000)
    photo = np.zeros((2, 2, 1), int)
    tokens = vocabulary.tokens([np.array([999, 0]), ("photo", photo)])
    assert tokens[1:3].tolist() == [999, 0]
    text, image = vocabulary.parse(tokens)
    assert (text.name, text.text, text.start, text.stop) == ("text", None, 1, 3)
    np.testing.assert_array_equal(image.parsed.codes, photo)
    for wrong in ("text", np.array([1000]), np.array([-1]), np.zeros((1, 1), int)):
        with pytest.raises(ValueError, match="text"):
            vocabulary.tokens([wrong])


def test_a_file_of_it(tmp_path: Path):
    VOCABULARY.save(tmp_path / "vocabulary.json")
    assert Vocabulary.load(tmp_path / "vocabulary.json") == VOCABULARY


@pytest.mark.parametrize(
    "change",
    [
        {"format": "x"},
        {"format_version": 2},
        {"colour": 1},
        {"size": 10},
        {"size": "many"},
        {"size": 10**40, "text": {"first": 1000, "size": 10**30}},
        {"pad": 5},
        {"pad": "x"},
        {"text": {"first": -1, "size": 3}},
        {"text": [0, 256]},
        {"layouts": []},
        {"layouts": {"photo": {}}},
        {"layouts": {"text": PRESETS["flat"]((4,), 400).to_json()}},
        {"layouts": {"sound": PRESETS["musicgen"]((4,), 400).to_json()}},
    ],
)
def test_refused_files(tmp_path: Path, change):
    path = tmp_path / "vocabulary.json"
    path.write_text(json.dumps({**VOCABULARY.to_json(), **change}))
    with pytest.raises(DataError, match="vocabulary"):
        Vocabulary.load(path)


def test_overlaps_are_refused():
    for first, message in ((100, "text"), (256, "pad"), (260, "photo")):
        layouts = {"photo": PRESETS["flat"]((8,), 259), "other": PRESETS["flat"]((8,), first)}
        with pytest.raises(ValueError, match=message):
            Vocabulary(size=999, pad=256, begin=257, end=258, text=range(256), layouts=layouts)


def test_an_unknown_preset():
    with pytest.raises(ValueError, match="preset must be one of"):
        Vocabulary.build({"photo": ("spiral", (8,))})


def test_names_do_not_excuse_overlaps():
    photo = PRESETS["flat"]((8,), 10)
    for layouts in ({"a:1": photo, "a:2": photo}, {"pad": photo}, {"begin": photo}):
        with pytest.raises(ValueError, match="overlap"):
            Vocabulary(size=99, pad=10, begin=11, layouts=layouts)


def test_tokens_of_sizes_are_in_the_vocabulary():
    book = (CodebookTokens(8, 0),)
    far = SequenceLayout(codebooks=book, size=SizePrefix(first=10, separator=20, end=200))
    with pytest.raises(ValueError, match="tokens up to 200"):
        Vocabulary(size=99, pad=9, layouts={"photo": far})
    for own in ({"pad": 20}, {"pad": 9, "begin": 13}, {"pad": 9, "end": 200}):
        with pytest.raises(ValueError, match="in a size of photo"):
            Vocabulary(size=999, **own, layouts={"photo": far})


def test_parts_that_cannot_be():
    with pytest.raises(ValueError, match="no layout 'film', only"):
        VOCABULARY.tokens([("film", np.zeros((2, 2, 1), int))])
    with pytest.raises(ValueError, match="float64, not integers"):
        VOCABULARY.text_tokens(np.array([1.7]))
