"""A token dataset of a million tiny samples: building, opening, random access, memory.

    python scripts/million_samples.py million/

Writes ``--samples`` samples of 4 x 4 codes (1,024 codes in a codebook) in shards of 10,000, then
reads in fresh processes: how long opening takes until the first sample is there, how long one
random sample takes in the plain tier (median and 99th percentile of 20,000), and the resident
memory after random access to 1 % and to 10 % of the samples and after reading all in order. Mapped
files are the kernel's to keep or drop: anonymous memory is what must not grow.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vqtok.cli import exit_code
from vqtok.tokens import Header, Sample, TokenReader, write_manifest, write_shard

SHARD = 10_000


def samples(first: int, count: int) -> Iterator[Sample]:
    codes = np.random.default_rng(first).integers(0, 1024, (count, 4, 4, 1))
    for i in range(count):
        yield Sample(codes[i], {"source": f"{(first + i) // 1000:04d}/{first + i:08d}.jpg"})


def build(out: Path, count: int, packing: str) -> dict[str, float]:
    header = Header(
        tokenizer="0" * 64, tokenizer_name="toy", codebook_sizes=(1024,), packing=packing
    )
    out.mkdir(parents=True)
    started, shards, early = time.perf_counter(), [], 0
    for first in range(0, count, SHARD):
        path = out / f"shard-{first // SHARD:05d}.safetensors"
        shards.append(write_shard(path, samples(first, min(SHARD, count - first)), header))
        early = early or anonymous()
    write_manifest(out, header, shards)
    seconds = time.perf_counter() - started
    size = sum(path.stat().st_size for path in out.iterdir())
    return {
        "build_s": seconds,
        "bytes": size,
        "anonymous_mb_after_one_shard": early,
        "anonymous_mb": anonymous(),
    }


def read(out: Path) -> dict[str, float]:
    started = time.perf_counter()
    reader = TokenReader(out)
    reader[len(reader) // 2]
    opened = time.perf_counter() - started
    rng = np.random.default_rng(0)
    facts: dict[str, float] = {"open_s": opened, "anonymous_mb_open": anonymous()}
    times = []
    for index in rng.integers(0, len(reader), 20_000).tolist():
        before = time.perf_counter_ns()
        reader[index]
        times.append(time.perf_counter_ns() - before)
    facts |= {
        "random_us_median": float(np.median(times)) / 1000,
        "random_us_99": float(np.quantile(times, 0.99)) / 1000,
    }
    for percent in (1, 10):
        for index in rng.integers(0, len(reader), len(reader) * percent // 100).tolist():
            reader[index]
        facts[f"anonymous_mb_{percent}_percent"] = anonymous()
    started = time.perf_counter()
    for _ in reader:
        pass
    facts |= {
        "in_order_us": (time.perf_counter() - started) / len(reader) * 1e6,
        "anonymous_mb_all": anonymous(),
    }
    return facts


def anonymous() -> float:
    """Resident memory of this process that is of no file, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1000
    raise RuntimeError("no RssAnon in /proc/self/status")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--only-read", action="store_true", help="OUT is there already")
    parser.add_argument("--packing", nargs="+", default=["plain", "bits"])
    args = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}")
    for packing in args.packing:
        out = args.out / packing
        if not args.only_read:
            print(json.dumps({"packing": packing, **build(out, args.samples, packing)}), flush=True)
        code = f"import json, runpy; from pathlib import Path; m = runpy.run_path({__file__!r}); "
        code += f"print(json.dumps(m['read'](Path({str(out)!r}))))"
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        print(json.dumps({"packing": packing, **json.loads(done.stdout)}), flush=True)


if __name__ == "__main__":
    sys.exit(exit_code(main))
