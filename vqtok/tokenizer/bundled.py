"""The tokenizers that come with vqtok, and their versions.

A tokenizer that was trained again keeps its name and gets a new version: ``photo`` is the latest,
``photo@1`` the first. ``pretrained/versions.json`` lists the fingerprint of every version there
ever was, the first one first, and the release of vqtok that brought it. The latest lies in the
folder ``photo``, an earlier one in ``photo@1`` for as long as it is bundled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from vqtok.autoencoders.storage import CONFIG_NAME
from vqtok.errors import UsageError


@dataclass(frozen=True)
class Version:
    """One version of a bundled tokenizer.

    Attributes:
        name: with the version, ``photo@1``.
        fingerprint: of the tokenizer.
        since: the release of vqtok that brought it.
        folder: where it lies; None if it comes with earlier releases only.
    """

    name: str
    fingerprint: str
    since: str
    folder: Path | None


def bundled_versions() -> tuple[Version, ...]:
    """Every version of every bundled tokenizer, by name, the first version first."""
    return _versions(_root())


@cache
def _versions(root: Path) -> tuple[Version, ...]:
    listed = json.loads((root / "versions.json").read_text(encoding="utf-8"))
    found = []
    for name, versions in sorted(listed.items()):
        for number, each in enumerate(versions, 1):
            latest = number == len(versions)
            folder = root / (name if latest else f"{name}@{number}")
            there = folder if (folder / CONFIG_NAME).is_file() else None
            found.append(Version(f"{name}@{number}", each["fingerprint"], each["since"], there))
    return tuple(found)


def bundled_names() -> list[str]:
    """The names of the tokenizers that come with vqtok, without versions."""
    return sorted({each.name.split("@")[0] for each in bundled_versions() if each.folder})


def is_bundled_name(name: str) -> bool:
    """Whether a name, with a version or without, is that of a bundled tokenizer."""
    return name in bundled_names() or any(each.name == name for each in bundled_versions())


def bundled_maker(name: str, fingerprint: str) -> str | None:
    """The bundled tokenizer that tokens name as their maker: ``photo@1``.

    Args:
        name: as the tokens have it, without a version.
        fingerprint: as the tokens have it.

    Returns:
        The name of the version of this fingerprint; None if no bundled tokenizer has it.

    Raises:
        UsageError: the version is no longer bundled, or (the name is bundled, the fingerprint
            unknown) not yet.
    """
    for version in bundled_versions():
        if version.fingerprint == fingerprint:
            _folder(version)
            return version.name
    if name in bundled_names():
        latest = [each for each in bundled_versions() if each.name.startswith(f"{name}@")][-1]
        raise UsageError(
            f"the tokens were made by a {name!r} of fingerprint {fingerprint[:12]}, which is none "
            f"of the versions that this vqtok knows (the latest is {latest.name}, "
            f"{latest.fingerprint[:12]}): a newer vqtok may have it, or name the folder of the "
            "right one with --tokenizer"
        )
    return None


def find_pretrained(name_or_folder: str | Path) -> Path:
    """The folder of a tokenizer: a bundled one by its name (the latest ``photo``, or ``photo@1``),
    any by its folder.

    Raises:
        UsageError: there is none, or the version is no longer bundled.
    """
    text = str(name_or_folder)
    if text in bundled_names():
        return _root() / text
    for version in bundled_versions():
        if version.name == text:
            return _folder(version)
    folder = Path(name_or_folder)
    if (folder / CONFIG_NAME).is_file():
        return folder
    raise UsageError(
        f"no tokenizer {text!r}: neither a bundled one ({', '.join(bundled_names())}) nor a folder "
        f"with a {CONFIG_NAME}"
    )


def _folder(version: Version) -> Path:
    if version.folder is None:
        raise UsageError(
            f"{version.name} ({version.fingerprint[:12]}) is no longer bundled; it came with vqtok "
            f"{version.since}: install that release for it, or name its folder with --tokenizer"
        )
    return version.folder


def _root() -> Path:
    return Path(str(resources.files("vqtok") / "pretrained"))
