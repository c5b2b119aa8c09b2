from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vqtok.tokens import Header, Sample, ShardInfo, write_manifest, write_shard


@pytest.fixture(params=["plain", "bits", "entropy", "entropy 2"])
def header(request: pytest.FixtureRequest) -> Header:
    """Three codebooks of awkward sizes, in each packing tier, and in format version 2."""
    packing, _, version = request.param.partition(" ")
    return Header(
        tokenizer="f" * 64,
        tokenizer_name="toy",
        codebook_sizes=(5, 300, 16),
        packing=packing,
        format_version=int(version or 1),
    )


def toy_samples(header: Header, count: int, seed: int = 0) -> list[Sample]:
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(count):
        dims = [int(size) for size in rng.integers(1, 5, len(header.dims))]
        planes = [rng.integers(0, size, dims) for size in header.codebook_sizes]
        meta = {"source": f"folder/phöto {i}.jpg", "size": [8 * size for size in dims]}
        samples.append(Sample(np.stack(planes, -1), meta))
    return samples


@pytest.fixture
def samples(header: Header) -> list[Sample]:
    return toy_samples(header, 5)


@pytest.fixture
def dataset(tmp_path: Path, header: Header, samples: list[Sample]) -> Path:
    """A folder of two shards with three and two samples."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    shards: list[ShardInfo] = []
    for name, part in (("a.safetensors", samples[:3]), ("b.safetensors", samples[3:])):
        shards.append(write_shard(folder / name, part, header))
    write_manifest(folder, header, shards)
    return folder
