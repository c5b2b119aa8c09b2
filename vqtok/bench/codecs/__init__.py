"""Everything that is compared: one file per family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vqtok.bench.codecs.base import Coder
from vqtok.bench.codecs.pictures import PICTURES
from vqtok.bench.codecs.sounds import SOUNDS
from vqtok.bench.codecs.tokenizers import TokenizerCoder
from vqtok.errors import UsageError
from vqtok.tokenizer import Tokenizer

BASELINES = {"image": PICTURES, "audio": SOUNDS}

QUICK_SETTINGS = 3


@dataclass(frozen=True)
class Lineup:
    """What is compared, by name: small enough to be sent to other processes.

    ``tokenizers`` are bundled names or folders; ``quick`` leaves out settings between.
    """

    modality: str
    tokenizers: tuple[str, ...]
    baselines: tuple[str, ...]
    quick: bool = False

    def coders(self) -> list[Coder]:
        """Load all of them; UsageError for an unknown one, or one that needs what is not there."""
        made: list[Coder] = []
        for name, given in zip(_names(self.tokenizers), self.tokenizers, strict=True):
            tokenizer = Tokenizer.from_pretrained(given)
            if tokenizer.modality != self.modality:
                raise UsageError(
                    f"tokenizer {given} is for {tokenizer.modality}, the data is {self.modality}"
                )
            made.append(TokenizerCoder(name, tokenizer, QUICK_SETTINGS if self.quick else None))
        formats = BASELINES[self.modality]
        for name in self.baselines:
            if name not in formats:
                raise UsageError(
                    f"unknown baseline {name!r} for {self.modality}: choose of {', '.join(formats)}"
                )
            baseline = formats[name]()
            if self.quick:
                baseline.thin_out(QUICK_SETTINGS)
            made.append(baseline)
        return made


def available(modality: str) -> tuple[list[str], list[str]]:
    """The baselines that can be used here, and a line about each of the others."""
    found, notes = [], []
    for name in BASELINES[modality]:
        problem = _problem(modality, name)
        if problem:
            notes.append(f"left out: {problem}")
        else:
            found.append(name)
    return found, notes


def _problem(modality: str, name: str) -> str | None:
    try:
        BASELINES[modality][name]()
    except UsageError as error:
        return str(error)
    return None


def _names(given: Sequence[str]) -> list[str]:
    """Short names of tokenizers, no two alike."""
    names: list[str] = []
    for each in given:
        name = stem = Path(each).resolve().name if Path(each).exists() else each
        number = 2
        while name in names:
            name = f"{stem}-{number}"
            number += 1
        names.append(name)
    return names
