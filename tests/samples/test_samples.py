"""The bundled photos are there, readable, small, and accounted for."""

from __future__ import annotations

from vqtok.media import read_image
from vqtok.samples import photos


def test_photos():
    paths = photos()
    assert len(paths) == 8
    assert sum(path.stat().st_size for path in paths) < 700_000
    for path in paths:
        decoded = read_image(path)
        assert decoded.notes == ()
        assert 400 <= max(decoded.pixels.shape) <= 640
        assert decoded.pixels.std() > 20


def test_every_photo_has_its_author_and_licence_listed():
    paths = photos()
    table = (paths[0].parent.parent / "SOURCES.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| `")]
    assert sorted(row[1].strip(" `") for row in rows) == [path.name for path in paths]
    assert all(row[4].strip() in ("public domain", "CC0 1.0", "CC BY 2.0") for row in rows)
