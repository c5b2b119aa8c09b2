"""results.json comes back as it was, and nothing else is taken for one."""

from __future__ import annotations

import copy
import csv
import io
import json
import random
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqtok.bench.results import Results
from vqtok.errors import DataError


@pytest.mark.parametrize("kind", ["image_results", "audio_results"])
def test_saved_and_loaded(kind, examples, tmp_path) -> None:
    results = getattr(examples, kind)()
    results.save(tmp_path)
    assert Results.load(tmp_path / "results.json") == results
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.csv", "results.json"]


def test_the_table_has_a_row_per_point(examples) -> None:
    results = examples.image_results()
    rows = list(csv.DictReader(io.StringIO(results.to_csv())))
    assert [(row["codec"], row["setting"]) for row in rows] == [
        (codec.name, point.setting) for codec in results.codecs for point in codec.points
    ]
    first, point = rows[0], results.codecs[0].points[0]
    assert float(first["bpp"]) == point.rate
    assert float(first["psnr"]) == point.mean["psnr"]
    assert float(first["psnr_se"]) == point.deviation["psnr"]
    assert float(first["mean_bytes"]) == sum(point.bytes[:3]) / 3
    assert first["samples"] == "3"
    assert rows[-1]["ms_ssim"] == rows[-1]["encode_seconds"] == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2, this vqtok reads 1"),
        ({"modality": "video"}, "modality: expected 'image' or 'audio', got 'video'"),
        ({"seed": True}, "seed: expected an integer, got True"),
        ({"common": [0, 9]}, "there are 4 samples"),
        ({"surprise": 1}, "unknown field 'surprise'"),
        ({"samples": [{"name": "a"}]}, r"samples\[0\]: the field 'original_bytes' is missing"),
        ({"machine": []}, "machine: expected an object"),
    ],
)
def test_what_is_malformed_is_refused(change, message, examples) -> None:
    value = json.loads(json.dumps(examples.image_results().to_json()))
    with pytest.raises(DataError, match=f"^here: .*{message}|^here: {message}"):
        Results.from_json({**value, **change}, "here")


def test_lists_are_as_long_as_the_samples(examples) -> None:
    results = examples.image_results()
    codec = results.codecs[1]
    short = replace(codec.points[0], bytes=(1, 2))
    broken = replace(results, codecs=(replace(codec, points=(short,)),))
    with pytest.raises(DataError, match="jpeg, quality 5: lists must have 4 entries"):
        Results.from_json(json.loads(json.dumps(broken.to_json())), "here")


@given(seed=st.integers(0, 2**32), odd=st.sampled_from([None, [], {}, "x", -1, 1e999, 10**400, {}]))
def test_no_damage_escapes_as_another_error(examples, seed: int, odd: Any) -> None:
    """One value anywhere replaced by something odd: read, or refused as DataError."""
    value = json.loads(json.dumps(examples.audio_results().to_json()))
    damaged = copy.deepcopy(value)
    rng = random.Random(seed)
    place: Any = damaged
    while True:
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not isinstance(place[key], dict | list) or not place[key] or rng.random() < 0.1:
            place[key] = odd
            break
        place = place[key]
    with suppress(DataError):
        Results.from_json(damaged, "here")
