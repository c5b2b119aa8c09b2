"""Random flipped bits in a shard too large to try them all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vqtok.errors import DataError
from vqtok.tokens import (
    Header,
    Sample,
    ShardReader,
    read_manifest,
    verify,
    write_manifest,
    write_shard,
)

SAMPLES = 200
FLIPS = 24


@pytest.mark.parametrize("packing", ["plain", "bits", "entropy"])
def test_a_flipped_bit_costs_one_sample_of_many(tmp_path: Path, packing: str) -> None:
    """It is found; all other samples are what they were, whether the manifest is there or not."""
    header = Header(
        tokenizer="f" * 64, tokenizer_name="toy", codebook_sizes=(1024, 1000), packing=packing
    )
    rng = np.random.default_rng(0)
    samples = [
        Sample(rng.integers(0, 1000, (3, 4, 2)), {"source": f"{i:04d}.jpg", "size": [24, 32]})
        for i in range(SAMPLES)
    ]
    path = tmp_path / "x.safetensors"
    info = write_shard(path, samples, header)
    write_manifest(tmp_path, header, [info])
    header = read_manifest(tmp_path).header
    sound = path.read_bytes()
    head = 8 + int.from_bytes(sound[:8], "little")
    everywhere = rng.integers(0, len(sound), FLIPS).tolist()
    for position in [*everywhere, *range(head, head + 40, 9)]:
        data = bytearray(sound)
        data[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        lost = 0
        reader = ShardReader(path, info, header)
        for index, sample in enumerate(samples):
            try:
                found = reader[index]
            except DataError:
                lost += 1
                continue
            np.testing.assert_array_equal(found.codes, sample.codes)
            assert found.meta == sample.meta
        assert lost <= (position >= head), f"byte {position}"
        assert reader.repaired == (position < head)
    assert verify(tmp_path)  # of the last flip; every single one is tried on a small shard
