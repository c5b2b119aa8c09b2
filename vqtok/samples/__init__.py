"""A few free photos and sounds, for demos and tests; SOURCES.md lists authors and licences."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def photos() -> list[Path]:
    """The bundled photos: JPEG, 451 to 640 pixels on the longer side, sorted by name."""
    folder = Path(str(files(__name__) / "photos"))
    return sorted(folder.glob("*.jpg"))


def sounds() -> list[Path]:
    """The bundled sounds: speech, music and animals, 4 to 6 seconds each, sorted by name."""
    folder = Path(str(files(__name__) / "sounds"))
    return sorted(path for path in folder.iterdir() if path.suffix in (".flac", ".ogg"))
