"""A folder of .npy files named after the samples' sources, and ``samples.jsonl``.

The lines of ``samples.jsonl`` have ``file``, ``index`` (the place in the token dataset) and the
metadata of each sample. Files are not synced one by one, as there may be millions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vqtok.exporters.records import Record, Spec, synced
from vqtok.pipeline.naming import Namer, make_parents
from vqtok.tokens.header import dump_json


def write(folder: Path, records: Iterator[Record], spec: Spec) -> Sequence[str]:
    """See :class:`~vqtok.exporters.records.Write`."""
    namer = Namer(".npy", spec.header.modality)
    with synced(folder / "samples.jsonl") as lines:
        for record in records:
            name = namer.name(record.source or f"sample-{record.index:06d}")
            np.save(make_parents(folder, name), record.array, allow_pickle=False)
            line = {"file": name, "index": record.index, **record.meta}
            lines.write(dump_json(line) + b"\n")
    return ()
