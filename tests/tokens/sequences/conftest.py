from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vqtok.tokens import Header, Sample, write_manifest, write_shard
from vqtok.tokens.sequences import TokenSource, Vocabulary

SIZES = {"photo": (8, 5), "sound": (6, 6, 4)}


def write_tokens(folder: Path, modality: str, count: int, seed: int, shards: int = 2) -> None:
    """A dataset of ``count`` samples of random dims, two or three codebooks, named captions."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    sizes = SIZES["photo" if modality == "image" else "sound"]
    header = Header(
        tokenizer=folder.name,
        tokenizer_name=folder.name,
        codebook_sizes=sizes,
        modality=modality,
        packing="bits" if modality == "image" else "plain",
    )
    samples = []
    for i in range(count):
        dims = rng.integers(1, 7, 2) if modality == "image" else (int(rng.integers(1, 20)), 1)
        codes = np.stack([rng.integers(0, size, dims) for size in sizes], -1)
        samples.append(Sample(codes, {"source": f"ein Bild {'x' * (i % 5)} {i}.jpg"}))
    parts = np.array_split(np.arange(count), shards)
    infos = [
        write_shard(folder / f"shard-{k}.safetensors", [samples[i] for i in part], header)
        for k, part in enumerate(parts)
    ]
    write_manifest(folder, header, infos)


def caption(meta):
    return meta["source"].removesuffix(".jpg")


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("tokens")
    write_tokens(base / "photos", "image", 150, 1)
    write_tokens(base / "sounds", "audio", 70, 2)
    return {"photo": base / "photos", "sound": base / "sounds"}


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary.build({"photo": ("raster", SIZES["photo"]), "sound": ("delay", (6, 6))})


@pytest.fixture
def sources(folders: dict[str, Path]) -> list[TokenSource]:
    return [
        TokenSource(folders["photo"], "photo", caption=caption),
        TokenSource(folders["sound"], "sound", repeat=1.5, window=(9, None)),
    ]
