"""Shards with the packing "entropy" that lie, with right checksums."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vqtok.errors import DataError
from vqtok.ops import entropy
from vqtok.tokens import Header, Sample, ShardReader, verify, write_shard
from vqtok.tokens.layout import parse_head
from vqtok.tokens.packing import Entropy
from vqtok.tokens.writer import index_bytes, running_crcs

HEADER = Header(tokenizer="f", tokenizer_name="n", codebook_sizes=(64, 1000), packing="entropy")


def constant(height: int = 16, width: int = 16) -> Sample:
    return Sample(np.full((height, width, 2), 9), {"source": "a"})


def forge(path: Path, **lies: object) -> ShardReader:
    """One coded sample, with entries of the index and the codes replaced, and right checksums."""
    write_shard(path, [constant()], HEADER)
    data = bytearray(path.read_bytes())
    _, tensors = parse_head(memoryview(data), "x")
    types = {"shape": "<i4", "plane_sizes": "<u4", "tokens": "u1", "crc32": "<u4"}
    arrays = {
        name: np.frombuffer(data[tensors[name].begin : tensors[name].end], dtype).copy()
        for name, dtype in types.items()
    }
    for name, value in lies.items():
        arrays[name][:] = value
    ends = np.cumsum(arrays["plane_sizes"], dtype=np.int64)
    planes = [arrays["tokens"][: ends[0]].tobytes(), arrays["tokens"][ends[0] : ends[1]].tobytes()]
    index = index_bytes(arrays["shape"], arrays["plane_sizes"])
    arrays["crc32"][:] = running_crcs(index, b'{"source":"a"}\n', planes)
    for name, array in arrays.items():
        data[tensors[name].begin : tensors[name].end] = array.tobytes()
    path.write_bytes(data)
    return ShardReader(path)


def test_the_forgery_itself_is_sound(tmp_path: Path) -> None:
    reader = forge(tmp_path / "x")
    assert verify(tmp_path / "x") == []
    assert (reader[0].codes == 9).all()
    assert reader._places._sizes is not None
    assert (reader._places._sizes[0] < (16 * 16 * 6 // 8, 16 * 16 * 10 // 8)).all()


@pytest.mark.parametrize(
    ("lies", "message"),
    [
        ({"plane_sizes": [0, 9]}, "plane 0 has 0 bytes for 256 codes, not 1 to 192"),
        ({"plane_sizes": [193, 9]}, "plane 0 has 193 bytes for 256 codes"),
        ({"plane_sizes": [5, 321]}, "plane 1 has 321 bytes for 256 codes, not 1 to 320"),
        ({"plane_sizes": [1, (1 << 32) - 1]}, "plane 1 has 4294967295 bytes"),
        ({"shape": [1 << 30, 1 << 30]}, "plane 0 has .* not 4503599627370496 to"),
        ({"shape": [1, 2]}, "plane 0 has .* bytes for 2 codes|padding bits"),
        ({"plane_sizes": [190, 300]}, "do not fit into"),
    ],
)
def test_lying_sizes_refuse_the_sample(tmp_path: Path, lies, message: str) -> None:
    reader = forge(tmp_path / "x", **lies)
    tracemalloc.start()
    with pytest.raises(DataError, match=rf"x: sample 0: .*({message})"):
        reader[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    assert verify(tmp_path / "x")


def test_any_bytes_are_codes_or_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    packing = Entropy(HEADER, tmp_path)
    refused = 0
    for _ in range(60):
        sizes = rng.integers(1, 40, 2).tolist()
        data = rng.integers(0, 256, sum(sizes)).astype(np.uint8)
        ends = packing.ends((5, 10), sizes) if max(sizes) <= 38 else None
        if ends is None:
            continue
        try:
            codes = packing.unpack(data, (5, 10), ends)
        except ValueError:
            refused += 1
        else:
            assert (codes.max(axis=(0, 1)) < (64, 1024)).all()
    assert refused > 5


def test_memory_is_in_proportion_to_the_file(tmp_path: Path) -> None:
    # the most codes per byte that the format allows
    write_shard(tmp_path / "x", [constant(512, 512)], HEADER)
    size = (tmp_path / "x").stat().st_size
    assert size < 512 * 512 * 2 / 100
    tracemalloc.start()
    assert (ShardReader(tmp_path / "x")[0].codes == 9).all()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size * 256 * 20


def test_bits_are_the_way_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(0, size, (9, 7)) for size in HEADER.codebook_sizes], -1)
    coded = write_shard(tmp_path / "x", [Sample(codes)], HEADER)
    bits = write_shard(tmp_path / "y", [Sample(codes)], replace(HEADER, packing="bits"))
    assert coded.token_bytes <= bits.token_bytes
    np.testing.assert_array_equal(ShardReader(tmp_path / "x")[0].codes, codes)


def test_large_codebooks_are_told_to_take_bits() -> None:
    with pytest.raises(ValueError, match=r"up to 1048576 codes, got 1048577: choose 'bits'"):
        replace(HEADER, codebook_sizes=(entropy.MAX_CODEBOOK_SIZE + 1,))
