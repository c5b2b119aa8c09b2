from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vqtok.tokens import Header, Sample, write_manifest, write_shard


def toy_samples(count: int, sizes: tuple[int, ...], seed: int = 0) -> list[Sample]:
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(count):
        dims = [int(size) for size in rng.integers(1, 6, 2)]
        codes = np.stack([rng.integers(0, size, dims) for size in sizes], -1)
        meta = {"source": f"folder/phöto {i % 5}.jpg", "size": [8 * size for size in dims]}
        samples.append(Sample(codes, meta if i != 3 else {}))
    return samples


def write(folder: Path, samples: list[Sample], sizes: tuple[int, ...], packing: str) -> Path:
    header = Header(tokenizer="f" * 64, tokenizer_name="toy", codebook_sizes=sizes, packing=packing)
    folder.mkdir()
    half = len(samples) // 2
    shards = [
        write_shard(folder / f"{name}.safetensors", part, header)
        for name, part in (("a", samples[:half]), ("b", samples[half:]))
    ]
    write_manifest(folder, header, shards)
    return folder


@pytest.fixture(scope="session")
def write_tokens():
    return write


@pytest.fixture(scope="session")
def make_samples():
    return toy_samples


SIZES = (5, 300, 16)


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    return toy_samples(9, SIZES)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory, samples: list[Sample]) -> Path:
    """Two shards; not to be changed."""
    return write(tmp_path_factory.mktemp("export") / "tokens", samples, SIZES, "bits")
