"""scripts/get_corpus.py: its tables, and the photos that lie inside other files."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import get_corpus  # type: ignore[import-not-found]


def encoded(size: tuple[int, int], form: str, seed: int) -> tuple[bytes, Image.Image]:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, form, quality=90)
    return buffer.getvalue(), image


def test_tables() -> None:
    packages = get_corpus.table("packages.tsv")
    photos = get_corpus.table("photos.tsv")
    assert all(re.fullmatch(r"[0-9a-f]{64}", each["sha256"]) for each in packages)
    assert {photo["package"] for photo in photos} == {each["package"] for each in packages}
    assert len({photo["file"] for photo in photos}) == len(photos) == 510
    assert all(photo["licence"] and Path(photo["file"]).name == photo["file"] for photo in photos)


def test_photos_inside_a_file_are_found_in_order(tmp_path: Path) -> None:
    made = [encoded((40, 30), form, seed) for seed, form in enumerate(["WEBP", "JPEG", "WEBP"])]
    (tmp_path / "all.rcc").write_bytes(
        b"qres" + b"\0between\xff\xd8".join(data for data, _ in made)
    )
    for number, (_, image) in enumerate(made):
        data = get_corpus.content(tmp_path, f"all.rcc#{number}")
        found = Image.open(io.BytesIO(data)).convert("RGB")
        assert found.size == image.size
        assert np.abs(np.asarray(found, float) - np.asarray(image, float)).mean() < 8


@pytest.mark.parametrize(
    ("form", "size", "kept", "expected"),
    [
        ("JPEG", (64, 48), True, (64, 48)),
        ("WEBP", (64, 48), False, (64, 48)),
        ("JPEG", (4096, 20), False, (2048, 10)),
    ],
)
def test_photos_are_kept_or_reduced(
    tmp_path: Path, form: str, size: tuple[int, int], kept: bool, expected: tuple[int, int]
) -> None:
    data, image = encoded(size, form, 3)
    get_corpus.write_photo(data, tmp_path / "photo.jpg")
    written = (tmp_path / "photo.jpg").read_bytes()
    assert (written == data) == kept
    result = Image.open(tmp_path / "photo.jpg")
    assert (result.format, result.size) == ("JPEG", expected)
    wanted = image.resize(expected, Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(result, float) - np.asarray(wanted, float)).mean() < 8


def test_a_package_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "debs").mkdir()
    (tmp_path / "debs" / "some_1.0_all.deb").write_bytes(b"another")
    with pytest.raises(SystemExit, match=r"some_1\.0_all\.deb has SHA-256 \w+, expected 00"):
        get_corpus.fetch({"package": "some", "version": "1.0", "sha256": "00"}, tmp_path)
