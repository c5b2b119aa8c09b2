"""Checking a token file or dataset completely: every byte, every checksum, every count."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vqtok.errors import DataError
from vqtok.files import is_temporary
from vqtok.tokens.header import Header, parse_json
from vqtok.tokens.manifest import ERRORS, MANIFEST, Manifest, ShardInfo, read_manifest
from vqtok.tokens.prior import PRIOR, find_prior
from vqtok.tokens.shard import ShardReader


@dataclass(frozen=True)
class Problem:
    """Something wrong in ``file``; ``sample`` is the index in that shard, None for the whole."""

    file: str
    sample: int | None
    message: str

    def __str__(self) -> str:
        place = self.file if self.sample is None else f"{self.file}: sample {self.sample}"
        return f"{place}: {self.message}"


def verify(path: Path | str, progress: Callable[[int], object] | None = None) -> list[Problem]:
    """All problems of a dataset folder or of a single shard; empty when it is sound.

    ``progress`` is called with the number of samples checked since the last call.
    """
    path = Path(path)
    if not path.is_dir():
        return _verify_shard(path, None, None, progress)
    try:
        manifest = read_manifest(path)
    except DataError as error:
        return [Problem(MANIFEST, None, str(error))]
    problems = _verify_folder(path, manifest)
    for info in manifest.shards:
        problems += _verify_shard(path / info.file, info, manifest.header, progress)
    return problems


def _verify_folder(folder: Path, manifest: Manifest) -> list[Problem]:
    problems = []
    listed = {info.file for info in manifest.shards}
    for path in sorted(folder.iterdir()):
        if is_temporary(path):
            problems.append(Problem(path.name, None, "left over by a run that was killed"))
        elif path.suffix == ".safetensors" and path.name not in {*listed, PRIOR}:
            problems.append(Problem(path.name, None, "a shard that the manifest does not list"))
    lines = (folder / ERRORS).read_bytes().splitlines() if (folder / ERRORS).exists() else []
    if len(lines) != manifest.errors:
        message = f"{len(lines)} lines, the manifest counts {manifest.errors} errors"
        problems.append(Problem(ERRORS, None, message))
    problems += [
        Problem(ERRORS, None, f"line {number} is not valid JSON")
        for number, line in enumerate(lines, 1)
        if not _is_json(line)
    ]
    return problems


def _is_json(line: bytes) -> bool:
    try:
        parse_json(line, ERRORS)
    except DataError:
        return False
    return True


def _verify_shard(
    path: Path,
    info: ShardInfo | None,
    header: Header | None,
    progress: Callable[[int], object] | None,
) -> list[Problem]:
    problems = []
    try:
        shard = ShardReader(path, info, header)
    except DataError as error:
        return [Problem(path.name, None, str(error).removeprefix(f"{path.name}: "))]
    if shard.repaired:
        message = "the header is damaged (the manifest replaces it)"
        problems.append(Problem(path.name, None, message))
    if info is not None:
        problems += _compare(path, info, len(shard))
    problems += [Problem(path.name, *problem) for problem in shard.index_problems()]
    readable = True
    if shard.header.prior and len(shard):
        try:
            find_prior(shard.header.prior, path.parent)
        except DataError as error:
            problems.append(Problem(path.name, None, str(error)))
            readable = False
    for index in range(len(shard)):
        try:
            shard.check(index, decode=readable)
        except DataError as error:
            message = str(error).removeprefix(f"{path.name}: sample {index}: ")
            problems.append(Problem(path.name, index, message))
        if progress is not None:
            progress(1)
    return problems


def _compare(path: Path, info: ShardInfo, samples: int) -> list[Problem]:
    problems = []
    if samples != info.samples:
        message = f"{samples} samples, the manifest says {info.samples}"
        problems.append(Problem(path.name, None, message))
    size = path.stat().st_size
    if size != info.bytes:
        message = f"{size} bytes, the manifest says {info.bytes}"
        problems.append(Problem(path.name, None, message))
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != info.sha256:
        problems.append(Problem(path.name, None, "its sha256 is not the manifest's"))
    return problems
