"""The bundled photos and sounds are there, readable, small, and accounted for."""

from __future__ import annotations

from vqtok.media import read_audio, read_image
from vqtok.samples import photos, sounds


def test_photos():
    paths = photos()
    assert len(paths) == 8
    assert sum(path.stat().st_size for path in paths) < 700_000
    for path in paths:
        decoded = read_image(path)
        assert decoded.notes == ()
        assert 400 <= max(decoded.pixels.shape) <= 640
        assert decoded.pixels.std() > 20


def test_sounds():
    paths = sounds()
    assert len(paths) == 6
    assert sum(path.stat().st_size for path in paths) < 600_000
    shapes = set()
    for path in paths:
        decoded = read_audio(path)
        assert decoded.notes == ()
        assert 4 <= decoded.samples.shape[1] / decoded.sample_rate <= 6.01
        assert decoded.samples.std() > 0.02
        shapes.add((decoded.sample_rate, len(decoded.samples)))
    assert shapes == {(16000, 1), (44100, 1), (44100, 2)}


def test_every_sample_has_its_author_and_licence_listed():
    paths = [*photos(), *sounds()]
    table = (paths[0].parent.parent / "SOURCES.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| `")]
    assert sorted(row[1].strip(" `") for row in rows) == sorted(path.name for path in paths)
    licences = ("public domain", "CC0 1.0", "CC BY 2.0", "CC BY 3.0", "CC BY 4.0", "CC BY-SA 3.0")
    assert all(row[4].strip() in licences for row in rows)
