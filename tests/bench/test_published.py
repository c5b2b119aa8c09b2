"""Files of published curves."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqtok.bench.published import load_published
from vqtok.errors import DataError, UsageError

GOOD = {"name": "VTM", "results": {"bpp": [0.5, 0.1], "psnr-rgb": [34, 28], "ms-ssim": [0.9, 0.8]}}


def load(path, value, modality="image", taken=()):
    path.write_text(json.dumps(value))
    return load_published(str(path), modality, taken)


def test_the_format_of_compressai(tmp_path) -> None:
    (codec,) = load(tmp_path / "a.json", {**GOOD, "description": "of old"})
    assert (codec.name, codec.kind) == ("VTM", "external")
    assert codec.description == "external, as published: of old"
    assert [(point.rate, point.mean) for point in codec.points] == [
        (0.1, {"psnr": 28.0, "ms_ssim": 0.8}),
        (0.5, {"psnr": 34.0, "ms_ssim": 0.9}),
    ]
    sound = {"name": "x", "results": {"kbps": [6], "pesq": [2.5]}}
    assert load(tmp_path / "b.json", [sound], "audio")[0].points[0].mean == {"pesq": 2.5}


def test_the_bundled_file() -> None:
    codecs = load_published("kodak", "image", ["jpeg"])
    assert [codec.name for codec in codecs] == ["VTM", "BPG", "AV1", "mbt2018-mean"]
    for codec in codecs:
        values = [point.mean["psnr"] for point in codec.points]
        assert values == sorted(values)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, '"name" and "results"'),
        ([1], '"name" and "results"'),
        ({**GOOD, "results": {"psnr": [1]}}, "no 'bpp'"),
        ({**GOOD, "results": {"bpp": [1, 2], "psnr": [1]}}, "psnr has 1 values for 2"),
        ({**GOOD, "results": {"bpp": [0], "psnr": [1]}}, "above 0"),
        ({**GOOD, "results": {"bpp": ["1"], "psnr": [1]}}, "'1' is not a number"),
        ({**GOOD, "results": {"bpp": [], "psnr": []}}, "array of numbers"),
        ({**GOOD, "results": {"bpp": [1], "vmaf": [1]}}, "no metric that is known"),
        ([GOOD, GOOD], "another codec of the name 'VTM'"),
    ],
)
def test_what_is_malformed_is_refused(value, message, tmp_path) -> None:
    with pytest.raises(DataError, match=message):
        load(tmp_path / "a.json", value)


def test_a_name_that_is_taken_and_no_file(tmp_path) -> None:
    with pytest.raises(DataError, match="another codec"):
        load(tmp_path / "a.json", GOOD, taken=["VTM"])
    with pytest.raises(UsageError, match=r"no such file, nor one of the bundled ones \(kodak\)"):
        load_published("nowhere.json", "image", [])


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.sampled_from(["bpp", "psnr"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["name", "results", "bpp", "psnr"]), inner, max_size=4
            )
        ),
        max_leaves=8,
    )
)
def test_anything_else_is_data_error(tmp_path_factory, value) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    try:
        codecs = load(path, value)
    except DataError:
        return
    assert all(point.rate > 0 for codec in codecs for point in codec.points)
