"""What was noted while inputs were read: which sentences, of how many samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Notes:
    """The ``notes`` of samples' metadata, the same sentence counted as one.

    ``found``: sentence to (number of samples, the source of the first), in order of appearance.
    """

    found: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, meta: Mapping[str, Any]) -> None:
        """Count those of one sample; what is no list of sentences is passed over."""
        notes = meta.get("notes")
        for note in notes if isinstance(notes, list) else ():
            if isinstance(note, str):
                count, first = self.found.get(note, (0, str(meta.get("source"))))
                self.found[note] = count + 1, first

    def update(self, later: Notes) -> None:
        """Count those that were noted elsewhere, as if after these."""
        for note, (more, source) in later.found.items():
            count, first = self.found.get(note, (0, source))
            self.found[note] = count + more, first

    def lines(self) -> list[str]:
        """A line for people of each sentence: "a.mp3 and 2 more: the sentence"."""
        return [
            f"{first}{f' and {count - 1:,} more' if count > 1 else ''}: {note}"
            for note, (count, first) in self.found.items()
        ]

    def to_json(self) -> list[dict[str, Any]]:
        """A dict of each sentence: ``note``, ``samples``, ``first``."""
        return [
            {"note": note, "samples": count, "first": first}
            for note, (count, first) in self.found.items()
        ]
