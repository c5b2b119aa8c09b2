"""webdataset tar files: ``shard-000000.tar`` with ``000000000.codes.npy`` and ``000000000.json``.

The number is the place in the token dataset; with a layout the arrays are ``.tokens.npy``. Members
have neither time nor owner, so the same samples make the same bytes.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtok.exporters.records import Record, Spec, synced

SHARD_BYTES = 1 << 28


def write(folder: Path, records: Iterator[Record], spec: Spec) -> Sequence[str]:
    """See :class:`~vqtok.exporters.records.Write`."""
    number = 0
    ahead = next(records, None)
    while ahead is not None:
        path = folder / f"shard-{number:06d}.tar"
        number += 1
        with synced(path) as file, tarfile.open(fileobj=file, mode="w") as archive:
            while ahead is not None and file.tell() < SHARD_BYTES:
                key = f"{ahead.index:09d}"
                _add(archive, f"{key}.{spec.name}.npy", npy_bytes(ahead.array))
                _add(archive, f"{key}.json", ahead.meta_json.encode("utf-8"))
                ahead = next(records, None)
    return ()


def npy_bytes(values: NDArray[Any]) -> bytes:
    """The content of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
