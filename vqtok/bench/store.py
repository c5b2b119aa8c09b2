"""Finished work, kept so that a bench can go on where it was stopped."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from vqtok.bench.fields import read_fields
from vqtok.errors import DataError
from vqtok.files import atomic_write
from vqtok.tokens.header import parse_json

FORMAT = 1
_RECORD = "unit.json"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A sample at one setting of one curve; see results.Point."""

    curve: str
    setting: str
    bytes: int
    encode_seconds: float
    decode_seconds: float
    peak_memory_bytes: int | None
    quality: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What a coder made of a sample; ``error`` says why it went no further than it did."""

    measurements: tuple[Measurement, ...]
    error: str | None = None


class Store:
    """A folder with a file per unit, named after all that decides it: a change makes another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, key: str) -> Unit | None:
        """The unit of this key; None where there is none, or a damaged one."""
        try:
            with zipfile.ZipFile(self._path(key)) as file:
                return read_fields(Unit, parse_json(file.read(_RECORD), key), key)
        except (OSError, zipfile.BadZipFile, KeyError, DataError):
            return None

    def save(self, key: str, unit: Unit, files: list[bytes]) -> None:
        """Keep a unit, with the coded file of each of its measurements; whole or not at all."""
        with (
            atomic_write(self._path(key), durable=False) as stream,
            zipfile.ZipFile(stream, "w") as file,
        ):
            file.writestr(_RECORD, json.dumps(asdict(unit), allow_nan=False))
            for i, data in enumerate(files):
                file.writestr(str(i), data)

    def data(self, key: str, index: int) -> bytes:
        """The coded file of a unit's measurement ``index``."""
        with zipfile.ZipFile(self._path(key)) as file:
            return file.read(str(index))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.zip"


def unit_key(original: NDArray[Any], **decided_by: Any) -> str:
    """A name for the work on ``original`` that JSON-able ``decided_by`` tells from any other."""
    digest = hashlib.sha256(json.dumps([FORMAT, decided_by], sort_keys=True).encode())
    digest.update(f"{original.dtype} {original.shape}".encode())
    digest.update(original.data)
    return digest.hexdigest()
