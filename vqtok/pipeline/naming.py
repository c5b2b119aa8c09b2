"""Names of decoded files: derived from where a sample came from, and never outside the output."""

from __future__ import annotations

import unicodedata
from pathlib import Path, PurePosixPath

from vqtok.errors import DataError
from vqtok.media.listing import EXTENSIONS
from vqtok.media.names import safe_name

MAX_NAME_BYTES = 1024


class Namer:
    """Hands out one file name per sample, never the same twice.

    Names that differ only in case or in how an accent is encoded count as the same, since on some
    file systems they are. The second sample of a name gets ``-2`` before its suffix, and so on, in
    the order of the samples. Of a name too long for a path the folders are dropped. ``suffix``
    replaces one that files of the ``modality`` have.
    """

    def __init__(self, suffix: str, modality: str = "image") -> None:
        self.suffix = suffix
        self._known = EXTENSIONS[modality]
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def name(self, source: str) -> str:
        """A relative POSIX path for a sample of this source, without ``..`` or links in it.

        >>> namer = Namer(".png")
        >>> namer.name("a/x.jpg"), namer.name("../a/x.png"), namer.name("/etc/passwd")
        ('a/x.png', 'a/x-2.png', 'etc/passwd.png')
        """
        path = PurePosixPath(safe_name(source))
        if len(str(path).encode()) > MAX_NAME_BYTES:
            path = PurePosixPath(path.name)
        folder = ""
        for part in path.parts[:-1]:
            folder = self._free(f"{folder}{part}", "", self._files) + "/"
            self._folders.add(_key(folder[:-1]))
        known = path.suffix.lower() in self._known and path.stem != ""
        stem = path.stem if known else path.name
        name = self._free(f"{folder}{stem}", self.suffix, self._files | self._folders)
        self._files.add(_key(name))
        return name

    def _free(self, stem: str, suffix: str, taken: set[str]) -> str:
        name, number = f"{stem}{suffix}", 1
        while _key(name) in taken:
            number += 1
            name = f"{stem}-{number}{suffix}"
        return name


def make_parents(out: Path, name: str) -> Path:
    """The path ``out / name`` with its folders made.

    Raises DataError when a link inside ``out`` would lead elsewhere.
    """
    folder = out
    for part in PurePosixPath(name).parts[:-1]:
        folder = folder / part
        if folder.is_symlink():
            raise DataError(f"{folder} is a link; nothing is written through it")
        folder.mkdir(exist_ok=True)
    return out / name


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
