"""Token files that were coded once, on AVX-512 with AMX, and must be readable for ever.

Each folder of golden/ has a shard, the codes it holds, and the prior it was coded with, if any.
Those called "mixed" are of format version 2, the others of version 1.
"""

from __future__ import annotations

import json
import zlib
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


def test_the_first_files_of_version_2_had_the_header_of_version_1(tmp_path: Path) -> None:
    folder = GOLDEN / "mixed-single"
    data = (folder / "shard.safetensors").read_bytes()
    length = 8 + int.from_bytes(data[:8], "little")
    description = json.loads(data[8:length])
    header = ShardReader(folder / "shard.safetensors").header
    description["__metadata__"] = {"vqtok": json.dumps(header.to_json())}
    text = json.dumps(description).encode()
    head = len(text).to_bytes(8, "little") + text
    end = length + description["index"]["data_offsets"][1]
    crc = zlib.crc32(head).to_bytes(4, "little")
    path = tmp_path / "shard.safetensors"
    path.write_bytes(head + data[length : end - 4] + crc + data[end:])
    (tmp_path / "prior.safetensors").write_bytes((folder / "prior.safetensors").read_bytes())
    assert ShardReader(path).header == header
    with np.load(folder / "codes.npz") as known:
        np.testing.assert_array_equal(ShardReader(path)[0].codes, known["0"])
