"""Reading tokens for training: vqtok beside litdata, webdataset, HF datasets and .npy files.

The same codes, of images of ``--side`` x ``--side`` codes of a codebook of 16,384, are written in
every format and read in random order (webdataset: through its shuffle buffer), each format in a
process of its own, ``--rounds`` times in turns; figures are medians. ``open`` is the time from the
finished imports to the first sample; then a whole epoch is read, every sample as an integer array.
CPU seconds are those of all threads of the process. What is not installed is left out.

    pip install ".[bench]"
    python scripts/bench_datasets.py --samples 10000 --out bench/
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from vqtok.cli import exit_code

SIZE = 16384
SHARD = 5000  # samples

Opened = Callable[[Path, int], Iterator[np.ndarray]]


def codes_of(samples: int, side: int) -> Iterator[np.ndarray]:
    """uint16 [side, side] with the frequencies of a real codebook, roughly: Zipf."""
    rng = np.random.default_rng(0)
    frequencies = 1 / np.arange(20, SIZE + 20)
    frequencies /= frequencies.sum()
    for start in range(0, samples, 1000):
        drawn = rng.choice(SIZE, (min(1000, samples - start), side, side), p=frequencies)
        yield from drawn.astype(np.uint16)


def write_vqtok(folder: Path, samples: int, side: int, packing: str) -> None:
    from vqtok.tokens import Header, Sample, write_manifest, write_shard

    folder.mkdir()
    header = Header(tokenizer="0", tokenizer_name="bench", codebook_sizes=(SIZE,), packing=packing)
    codes, shards = codes_of(samples, side), []
    for first in range(0, samples, SHARD):
        part = (
            Sample(next(codes)[..., None], {"source": f"{i:08d}.jpg", "size": [256, 256]})
            for i in range(first, min(first + SHARD, samples))
        )
        shards.append(write_shard(folder / f"shard-{first:08d}.safetensors", part, header))
    write_manifest(folder, header, shards)


def read_vqtok(folder: Path, seed: int) -> Iterator[np.ndarray]:
    from vqtok import TokenReader

    reader = TokenReader(folder)
    for i in np.random.default_rng(seed).permutation(len(reader)).tolist():
        yield reader.codes(i)


def read_vqtok_dataset(folder: Path, seed: int) -> Iterator[np.ndarray]:
    """Rows with ends, packed end to end in sequences of 1,024: what a model is trained on."""
    from vqtok import TokenDataset, TokenSource, Vocabulary

    vocabulary = Vocabulary.build({"image": ("raster", (SIZE,))})
    dataset = TokenDataset([TokenSource(folder, "image")], 1024, vocabulary, seed=seed)
    for i in range(len(dataset)):
        yield dataset[i]["tokens"]


def write_npy(folder: Path, samples: int, side: int) -> None:
    folder.mkdir()
    for i, codes in enumerate(codes_of(samples, side)):
        np.save(folder / f"{i:08d}.npy", codes)


def read_npy(folder: Path, seed: int) -> Iterator[np.ndarray]:
    names = sorted(folder.iterdir())
    for i in np.random.default_rng(seed).permutation(len(names)).tolist():
        yield np.load(names[i]).astype(np.int64)


def write_webdataset(folder: Path, samples: int, side: int) -> None:
    folder.mkdir()
    codes = codes_of(samples, side)
    for first in range(0, samples, SHARD):
        with tarfile.open(folder / f"{first:08d}.tar", "w") as tar:
            for i in range(first, min(first + SHARD, samples)):
                data = io.BytesIO()
                np.save(data, next(codes))
                info = tarfile.TarInfo(f"{i:08d}.npy")
                info.size = data.tell()
                data.seek(0)
                tar.addfile(info, data)


def read_webdataset(folder: Path, seed: int) -> Iterator[np.ndarray]:
    import webdataset

    names = sorted(str(path) for path in folder.iterdir())
    data = webdataset.WebDataset(names, shardshuffle=len(names), seed=seed).shuffle(1000).decode()
    for sample in data:
        yield sample["npy"].astype(np.int64)


def write_datasets(folder: Path, samples: int, side: int) -> None:
    import datasets

    features = datasets.Features({"codes": datasets.List(datasets.Value("uint16"))})
    data = datasets.Dataset.from_generator(
        lambda: ({"codes": codes.ravel()} for codes in codes_of(samples, side)),
        features=features,
        cache_dir=str(folder.with_suffix(".cache")),
    )
    data.save_to_disk(folder)


def read_datasets(folder: Path, seed: int) -> Iterator[np.ndarray]:
    import datasets

    data = datasets.load_from_disk(str(folder)).with_format("numpy")
    for i in np.random.default_rng(seed).permutation(len(data)).tolist():
        yield data[i]["codes"].astype(np.int64)


def _codes_at(i: int, side: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(i)
    return {"codes": rng.integers(0, SIZE, (side, side)).astype(np.uint16)}


def write_litdata(folder: Path, samples: int, side: int) -> None:
    from functools import partial

    import litdata

    litdata.optimize(
        partial(_codes_at, side=side),
        list(range(samples)),
        str(folder),
        chunk_bytes="16MB",
        num_workers=1,
        verbose=False,
    )


def read_litdata(folder: Path, seed: int) -> Iterator[np.ndarray]:
    import litdata

    for sample in litdata.StreamingDataset(str(folder), shuffle=True, seed=seed):
        yield sample["codes"].astype(np.int64)


# name: (module that it needs, folder, writer, reader)
FORMATS: dict[str, tuple[str, str, Callable[[Path, int, int], None], Opened]] = {
    "vqtok, plain": ("vqtok", "plain", lambda *a: write_vqtok(*a, "plain"), read_vqtok),
    "vqtok, bits": ("vqtok", "bits", lambda *a: write_vqtok(*a, "bits"), read_vqtok),
    "TokenDataset": ("vqtok", "plain", lambda *a: write_vqtok(*a, "plain"), read_vqtok_dataset),
    ".npy files": ("numpy", "npy", write_npy, read_npy),
    "webdataset": ("webdataset", "webdataset", write_webdataset, read_webdataset),
    "HF datasets": ("datasets", "datasets", write_datasets, read_datasets),
    "litdata": ("litdata", "litdata", write_litdata, read_litdata),
}


def measure(name: str, folder: Path, seed: int) -> dict[str, float]:
    """Open and read an epoch, in this process."""
    module, _, _, read = FORMATS[name]
    importlib.import_module(module)
    if module == "vqtok":
        import vqtok

        vqtok.TokenDataset  # noqa: B018 - imports are lazy
    started = time.perf_counter()
    samples = read(folder, seed)
    first = next(samples)
    opened, cpu = time.perf_counter(), time.process_time()
    tokens = first.size + sum(codes.size for codes in samples)
    seconds, cpu = time.perf_counter() - opened, time.process_time() - cpu
    return {"open": opened - started, "seconds": seconds, "cpu": cpu, "tokens": tokens}


def in_process(name: str, folder: Path, seed: int) -> dict[str, float]:
    """The same, in a fresh process."""
    command = [sys.executable, __file__, "--measure", name, str(folder), "--rounds", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def report(
    results: dict[str, list[dict[str, float]]], sizes: dict[str, float], samples: int
) -> str:
    """The table."""
    head = "| | open, ms | images/s | images per CPU second | Mtokens/s | bytes per code |"
    lines = [head, "|---|---|---|---|---|---|"]
    for name, rounds in results.items():
        seconds = statistics.median(each["seconds"] for each in rounds)
        opened = statistics.median(each["open"] for each in rounds)
        cpu = statistics.median(each["cpu"] for each in rounds)
        tokens = rounds[0]["tokens"]
        lines.append(
            f"| {name} | {opened * 1e3:.0f} | {samples / seconds:,.0f} | {samples / cpu:,.0f} "
            f"| {tokens / seconds / 1e6:.1f} | {sizes[name]:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=10000)
    parser.add_argument("--side", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--write", action="store_true", help="write what is missing, read nothing")
    parser.add_argument("--out", type=Path, default=Path("bench-datasets"))
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure[0], Path(args.measure[1]), args.rounds)))
        return
    args.out.mkdir(exist_ok=True)
    names = [name for name in args.only if importlib.util.find_spec(FORMATS[name][0])]
    folders, sizes = {}, {}
    for name in names:
        _, kind, write, _ = FORMATS[name]
        folders[name] = args.out / f"{kind}-{args.samples}-{args.side}"
        if not folders[name].exists():
            write(folders[name], args.samples, args.side)
        total = sum(path.stat().st_size for path in folders[name].rglob("*") if path.is_file())
        sizes[name] = total / (args.samples * args.side**2)
    if args.write:
        return
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(args.rounds):
        for name in names:
            results[name].append(in_process(name, folders[name], turn))
    print(report(results, sizes, args.samples))


if __name__ == "__main__":
    sys.exit(exit_code(main))
