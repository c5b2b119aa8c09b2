"""Time of the smaller native ops beside what one would write with torch and numpy.

Both run in turns in one process; the ratio is the median over rounds of theirs / ours.

    python scripts/bench_ops.py
    python scripts/bench_ops.py --threads 1 --rounds 30
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vqtok import ops
from vqtok.cli import exit_code

Case = tuple[str, Callable[[], object], Callable[[], object]]


def ema_case(rows: int, dim: int, size: int) -> Case:
    x, codes = torch.randn(rows, dim), torch.randint(size, (rows,))

    def plain() -> tuple[Tensor, Tensor]:
        sums = torch.zeros(size, dim).index_add_(0, codes, x)
        return torch.bincount(codes, minlength=size), sums

    _, sums = plain()
    torch.testing.assert_close(ops.ema_update(x, codes, size)[1], sums, rtol=1e-3, atol=1e-3)
    title = f"ema_update, N={rows} D={dim} K={size} | index_add_ + bincount"
    return title, lambda: ops.ema_update(x, codes, size), plain


def packing_case(count: int, bits: int) -> Case:
    codes = torch.randint(1 << bits, (count,))
    array, shifts = codes.numpy(), np.arange(bits)

    def plain() -> np.ndarray:
        table = (array[:, None] >> shifts & 1).astype(np.uint8)
        return np.packbits(table.reshape(-1), bitorder="little")

    assert np.array_equal(plain(), ops.pack_bits(codes, bits).numpy())
    title = f"pack_bits, {count} codes of {bits} bits | numpy.packbits"
    return title, lambda: ops.pack_bits(codes, bits), plain


def cosine_case(rows: int, dim: int, size: int) -> Case:
    x, codebook = torch.randn(rows, dim), torch.randn(size, dim)

    def plain() -> Tensor:
        return (F.normalize(x, dim=1) @ F.normalize(codebook, dim=1).T).argmax(1)

    assert (ops.nearest_cosine(x, codebook) == plain()).float().mean() > 0.999
    title = f"nearest_cosine, N={rows} D={dim} K={size} | normalize, matmul, argmax"
    return title, lambda: ops.nearest_cosine(x, codebook), plain


def residual_case(rows: int, dim: int, size: int, levels: int) -> Case:
    x, tables = torch.randn(rows, dim), [torch.randn(size, dim) for _ in range(levels)]

    def plain() -> Tensor:
        total = torch.zeros_like(x)
        for table in tables:
            total = total + table[torch.cdist(x - total, table).argmin(1)]
        return total

    title = f"quantize, N={rows} D={dim}, {levels} of K={size} | cdist, argmin, gather"
    return title, lambda: ops.quantize(x, tables), plain


def compare(case: Case, rounds: int) -> str:
    title, ours, theirs = case
    times: list[tuple[float, float]] = []
    for _ in range(rounds + 2):
        pair = []
        for run in (ours, theirs):
            start = time.perf_counter()
            run()
            pair.append(1e3 * (time.perf_counter() - start))
        times.append((pair[0], pair[1]))
    first, second = (statistics.median(column) for column in zip(*times[2:], strict=True))
    ratio = statistics.median(b / a for a, b in times[2:])
    return f"| {title} | {first:.2f} | {second:.2f} | {ratio:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    cases = [
        *(ema_case(65536, dim, 1024) for dim in (8, 64, 256)),
        packing_case(1 << 22, 10),
        packing_case(1 << 22, 14),
        cosine_case(65536, 64, 1024),
        residual_case(16384, 64, 1024, 4),
    ]
    print(f"{options.threads} threads, torch {torch.__version__}\n")
    print("| op | instead of | ms | ms instead | ratio |\n|---|---|---|---|---|")
    for case in cases:
        print(compare(case, options.rounds), flush=True)


if __name__ == "__main__":
    sys.exit(exit_code(main))
