"""Token files that were coded once, on AVX-512 with AMX, and must be readable for ever.

Each folder of golden/ has a shard, the codes it holds, and the prior it was coded with, if any.
Those called "mixed" are of format version 2, the others of version 1.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vqtok.ops import native
from vqtok.tokens import Sample, ShardReader, write_shard

GOLDEN = Path(__file__).with_name("golden")
WAYS = [*((isa, threads) for isa in native.supported_isas() for threads in (1, 2)), ("numpy", 1)]


@pytest.mark.parametrize(("isa", "threads"), WAYS)
@pytest.mark.parametrize("folder", sorted(GOLDEN.iterdir()), ids=lambda path: path.name)
def test_golden_files(folder: Path, isa, threads, monkeypatch, tmp_path: Path) -> None:
    if isa == "numpy":
        monkeypatch.setattr(native, "load", lambda: None)
    else:
        monkeypatch.setattr(native, "_forced_isa", isa)
    monkeypatch.setattr(native, "num_threads", lambda: threads)
    reader = ShardReader(folder / "shard.safetensors")
    with np.load(folder / "codes.npz") as known:
        wanted = [known[str(i)] for i in range(len(known.files))]
    assert len(reader) == len(wanted)
    samples = []
    for index, codes in enumerate(wanted):
        found = reader[index]
        np.testing.assert_array_equal(found.codes, codes)
        samples.append(Sample(codes, found.meta))
    if (folder / "prior.safetensors").exists():
        (tmp_path / "prior.safetensors").write_bytes((folder / "prior.safetensors").read_bytes())
    write_shard(tmp_path / "again.safetensors", samples, reader.header)
    again = (tmp_path / "again.safetensors").read_bytes()
    assert again == (folder / "shard.safetensors").read_bytes()
