"""manifest.json: the shards of a finished dataset, in order."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from vqtok.errors import DataError
from vqtok.files import atomic_write
from vqtok.tokens.header import Header, parse_json

MANIFEST = "manifest.json"
ERRORS = "errors.jsonl"
MAX_MANIFEST = 1 << 28
"""Most bytes of a manifest that a reader takes into memory."""

_PLAN = re.compile("([0-9a-f]{64})?")


@dataclass(frozen=True)
class ShardInfo:
    """One shard as the manifest lists it; sizes in bytes, ``sha256`` of the whole file in hex."""

    file: str
    samples: int
    bytes: int
    token_bytes: int
    meta_bytes: int
    sha256: str

    @classmethod
    def from_json(cls, value: object, where: str) -> ShardInfo:
        """Read an entry; DataError naming ``where`` for a missing or malformed field."""
        if not isinstance(value, dict):
            raise DataError(f"{where}: a shard entry is not a JSON object")
        entry: dict[str, Any] = {field.name: value.get(field.name) for field in fields(cls)}
        name, digest = entry["file"], entry["sha256"]
        if not isinstance(name, str) or not is_plain_name(name):
            raise DataError(f"{where}: {name!r} is not a plain file name")
        if not isinstance(digest, str):
            raise DataError(f"{where}: {name}: sha256 is not a string")
        for key in ("samples", "bytes", "token_bytes", "meta_bytes"):
            if not _is_count(entry[key]):
                raise DataError(f"{where}: {name}: {key} is {entry[key]!r}, not a count")
        return cls(**entry)


@dataclass(frozen=True)
class Manifest:
    """A finished dataset.

    ``errors``: number of inputs that could not be encoded, one line of errors.jsonl each.
    ``plan``: sha256 of the plan the dataset was made from ("" where there was none).
    """

    header: Header
    shards: tuple[ShardInfo, ...]
    errors: int = 0
    plan: str = ""

    @property
    def samples(self) -> int:
        """Number of samples in all shards."""
        return sum(shard.samples for shard in self.shards)

    def to_json(self) -> dict[str, Any]:
        """The JSON object of FORMAT.md, section "Manifest"."""
        return {
            **self.header.to_json(),
            "samples": self.samples,
            "errors": self.errors,
            "plan": self.plan,
            "shards": [asdict(shard) for shard in self.shards],
        }


def is_plain_name(name: str) -> bool:
    """Whether ``name`` can only mean a file directly inside a folder."""
    return name not in ("", ".", "..") and not any(char in name for char in "/\\:\0")


def write_manifest(folder: Path, header: Header, shards: Sequence[ShardInfo], **extra: Any) -> None:
    """Write ``folder/manifest.json``; the bytes depend on the arguments alone.

    ``extra``: ``errors`` and ``plan`` of :class:`Manifest`. The shards must be in the folder
    already: the manifest is what makes them a dataset.
    """
    manifest = Manifest(header, tuple(shards), **extra)
    text = json.dumps(manifest.to_json(), indent=1, ensure_ascii=True)
    with atomic_write(folder / MANIFEST) as file:
        file.write(text.encode("ascii") + b"\n")


def read_manifest(folder: Path) -> Manifest:
    """Read and check ``folder/manifest.json``.

    Raises DataError when there is none (the run that makes the dataset has not finished) or when it
    is malformed; a shard's file name with a path in it counts as malformed.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(
            f"{folder}: no {MANIFEST}: not a token dataset, or its `vqtok encode` has not "
            "finished (run the same command again)"
        )
    if path.stat().st_size > MAX_MANIFEST:
        raise DataError(f"{path}: {path.stat().st_size} bytes are too many for a manifest")
    value = parse_json(path.read_bytes(), str(path))
    header = Header.from_json(value, str(path))
    shards = value.get("shards")
    if not isinstance(shards, list):
        raise DataError(f"{path}: shards is not a list")
    infos = tuple(ShardInfo.from_json(entry, str(path)) for entry in shards)
    names = {info.file for info in infos}
    if len(names) != len(infos):
        raise DataError(f"{path}: a shard is listed twice")
    errors, plan = value.get("errors", 0), value.get("plan", "")
    if not _is_count(errors) or not (isinstance(plan, str) and _PLAN.fullmatch(plan)):
        raise DataError(f"{path}: errors {errors!r} or plan {plan!r} are malformed")
    manifest = Manifest(header, infos, errors, plan)
    if value.get("samples") != manifest.samples:
        raise DataError(
            f"{path}: samples is {value.get('samples')!r}, the shards hold {manifest.samples}"
        )
    return manifest


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 63
