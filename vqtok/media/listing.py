"""What a job reads: the files that a folder, glob, file, text list or tar archive stands for."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from vqtok.errors import DataError, UsageError
from vqtok.media.names import safe_name
from vqtok.media.sources import Source

_IMAGES = (
    "apng avif bmp dib gif j2c j2k jfif jp2 jpc jpe jpeg jpf jpg jpx pbm pgm png pnm ppm qoi tif "
    "tiff webp"
)
_AUDIO = "aac aif aiff au caf flac m4a m4b mka mp3 oga ogg opus w64 wav wma"
_VIDEO = "3gp avi flv m4v mkv mov mp4 mpeg mpg ts webm wmv"


def _extensions(*texts: str) -> frozenset[str]:
    return frozenset(f".{extension}" for text in texts for extension in text.split())


EXTENSIONS = {"image": _extensions(_IMAGES), "audio": _extensions(_AUDIO, _VIDEO)}
"""Which files of a folder, glob or tar archive are taken; a file named outright always is."""

_EITHER = _extensions(_IMAGES, _AUDIO)  # of a video nobody knows what is wanted

LIST_EXTENSIONS = (".txt", ".lst")
TAR_EXTENSION = ".tar"


def modality_of(name: str) -> str | None:
    """The modality of the files that are named like this, by their extension; None if unknown."""
    extension = os.path.splitext(name)[1].lower()
    return next((kind for kind, known in EXTENSIONS.items() if extension in known), None)


@dataclass(frozen=True)
class Listing:
    """What was found.

    Attributes:
        sources: the inputs, in an order that depends on their names alone (of a text list: in
            its order; of a tar archive: in the archive's).
        skipped: how many files were passed over, by lower-case extension ("" for none).
    """

    sources: list[Source]
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def modalities(self) -> dict[str, int]:
        """How many inputs there are of each modality, by their names; unknown ones are images."""
        return dict(Counter(modality_of(source.uri) or "image" for source in self.sources))


def list_sources(spec: str | os.PathLike[str], modality: str = "image") -> list[Source]:
    """The inputs that ``spec`` stands for; see :func:`scan_sources`, which also counts the rest."""
    return scan_sources(spec, modality).sources


def scan_sources(
    spec: str | os.PathLike[str],
    modality: str | None = "image",
    extensions: frozenset[str] | None = None,
) -> Listing:
    """Find the inputs that ``spec`` stands for. Nothing is decoded or extracted.

    ``spec`` is one of

    - a folder: every file below it with a known extension, hidden ones apart. Links are
      followed, each folder is visited once;
    - a glob (``*``, ``?``, ``[...]``, ``**``): the files it matches that have a known extension,
      and the members of the ``.tar`` archives it matches;
    - a ``.tar`` archive (also a webdataset shard): its members with a known extension. Their
      ``uri`` starts with the archive's own name;
    - a ``.txt`` or ``.lst`` file: a list of files and archives, one a line, relative to the
      list's folder. A file that is not there fails later, when it is opened;
    - any other file, whatever its extension.

    Args:
        spec: as above.
        modality: ``image`` or ``audio``: which extensions are known; ``audio`` knows those of
            videos too. None: those of both, videos apart.
        extensions: these instead, in lower case with their dots.

    Raises:
        UsageError: nothing is there, or nothing that could be read.
        DataError: a tar archive or list is damaged, or a folder cannot be listed.
    """
    if modality is not None and modality not in EXTENSIONS:
        raise UsageError(f"unknown modality {modality!r}: choose {' or '.join(EXTENSIONS)}")
    known = _EITHER if modality is None else EXTENSIONS[modality]
    scan = _Scan(known if extensions is None else extensions)
    spec = os.fspath(spec)
    if os.path.isdir(spec):
        scan.folder(spec)
    elif os.path.lexists(spec):
        scan.named(spec, lists=True)
    elif glob.has_magic(spec):
        scan.glob(spec)
    else:
        raise UsageError(f"{spec}: no such file or folder")
    if not scan.sources:
        what = "fitting" if extensions is not None else modality or "image or audio"
        message = _nothing_found(spec, what, scan)
        if scan.folders:
            message += f"; it matches {scan.folders} folders, whose files are matched by {spec}/*"
        raise UsageError(message)
    return Listing(scan.sources, dict(sorted(scan.skipped.items())))


def _nothing_found(spec: str, what: str, scan: _Scan) -> str:
    skipped = scan.skipped
    message = f"{spec}: no {what} files here (looked for {' '.join(sorted(scan.extensions))}"
    if skipped:
        others = ", ".join(
            f"{count} {ext or 'without extension'}" for ext, count in skipped.items()
        )
        message += f"; other files: {others}"
    message += ")"
    if TAR_EXTENSION in skipped:
        message += "; to read the archives in a folder, name them as 'FOLDER/*.tar'"
    return message


class _Scan:
    """One walk over the inputs: what is taken, and the extensions of what is not."""

    def __init__(self, extensions: frozenset[str]) -> None:
        self.extensions = extensions
        self.sources: list[Source] = []
        self.skipped: Counter[str] = Counter()
        self.folders = 0  # that a glob matches

    def folder(self, root: str) -> None:
        found = [(name, path) for name, path in _walk(root) if self._known(name)]
        found.sort(key=lambda pair: os.fsencode(pair[0]))
        self.sources += [Source(safe_name(name), os.path.abspath(path)) for name, path in found]

    def glob(self, pattern: str) -> None:
        fixed = len(list(_until_magic(pattern)))
        for path in sorted(set(glob.glob(pattern, recursive=True)), key=os.fsencode):
            if os.path.isdir(path):
                self.folders += 1
                continue
            name = PurePosixPath(*Path(path).parts[fixed:]).as_posix()
            if path.lower().endswith(TAR_EXTENSION):
                self.archive(path, name)
            elif self._known(name):
                self.sources.append(Source(safe_name(name), os.path.abspath(path)))

    def named(self, path: str, name: str | None = None, *, lists: bool = False) -> None:
        name = name or os.path.basename(path)
        lowered = path.lower()
        if lowered.endswith(TAR_EXTENSION):
            self.archive(path, name)
        elif lists and lowered.endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
            raise UsageError(
                f"{path}: compressed archives cannot be read in place; unpack it first"
            )
        elif lists and lowered.endswith(LIST_EXTENSIONS):
            self.text_list(path)
        else:
            self.sources.append(Source(safe_name(name), os.path.abspath(path)))

    def text_list(self, path: str) -> None:
        try:
            with open(path, encoding="utf-8-sig", errors="surrogateescape", newline=None) as lines:
                for number, line in enumerate(lines, start=1):
                    line = line.rstrip("\r\n")
                    if "\0" in line:
                        raise DataError(f"{path}, line {number}: a NUL byte: not a text list")
                    if line.strip():
                        self.named(os.path.join(os.path.dirname(path), line), line)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error

    def archive(self, path: str, name: str) -> None:
        from vqtok.media.tar import list_members

        for member in list_members(path):
            uri = safe_name(f"{name}/{member.name}")
            hidden = any(part[0] == "." for part in safe_name(member.name).split("/"))
            if not hidden and self._known(member.name):
                source = Source(uri, os.path.abspath(path), member.offset, member.length)
                self.sources.append(source)

    def _known(self, name: str) -> bool:
        extension = os.path.splitext(name)[1].lower()
        known = extension in self.extensions
        if not known:
            self.skipped[safe_name(extension) if extension else ""] += 1
        return known


def _until_magic(pattern: str) -> Iterator[str]:
    """The leading folders of a glob that hold no wildcard."""
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(part):
            return
        yield part


def _walk(root: str) -> Iterator[tuple[str, str]]:
    """(relative POSIX name, path) of every visible file below root, each folder visited once."""
    visited: set[tuple[int, int]] = set()
    pending = [("", root)]
    while pending:
        prefix, folder = pending.pop()
        try:
            here = os.stat(folder)
            if (here.st_dev, here.st_ino) in visited:
                continue
            visited.add((here.st_dev, here.st_ino))
            with os.scandir(folder) as entries:
                visible = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            raise DataError(f"{folder}: cannot be listed: {error.strerror or error}") from error
        folders = []
        for entry in sorted(visible, key=lambda entry: os.fsencode(entry.name)):
            if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
                folders.append((f"{prefix}{entry.name}/", entry.path))
            else:  # a broken link, or what is no regular file, fails when it is opened
                yield prefix + entry.name, entry.path
        pending += reversed(folders)
