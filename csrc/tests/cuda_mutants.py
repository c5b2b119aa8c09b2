"""Breaks the CUDA kernels on purpose, one mistake at a time; the emulated tests must notice each.

usage: cuda_mutants.py BUILD_FOLDER [NAME...]

Takes minutes: for those who change kernels, emulator or tests, not part of `make test`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CSRC = Path(__file__).resolve().parents[1]
FLAGS = ("-std=c++17", "-O1", "-g", "-ffp-contract=off", "-Wno-unknown-pragmas")
# The sanitizer and the test that should notice.
ADDRESS, THREAD = "address,undefined", "thread"
NEAREST, EMA, RACES = "test_cuda_nearest", "test_cuda_ema", "test_cuda_emulator"
SMALL, WIDE, STEPS = "nearest_small.cuh", "nearest_wide.cuh", "nearest_kernels.cuh"

# name: (sanitizer, test, file, what stands there, what a mistake would make of it)
MUTANTS = {
    "wide-barrier": (
        *(THREAD, RACES, WIDE),
        "__syncthreads();  // this stage is complete",
        "// this stage is complete",
    ),
    "wide-last-barrier": (
        *(THREAD, RACES, WIDE),
        "__syncthreads();  // the stages are no longer read",
        "// the stages are no longer read",
    ),
    "wide-wait": (
        *(ADDRESS, NEAREST, WIDE),
        "wait_for_copies<kStages - 2>()",
        "wait_for_copies<kStages - 1>()",
    ),
    "wide-row-guard": (*(ADDRESS, NEAREST, WIDE), "row < x.rows && d < x.dim;", "d < x.dim;"),
    "wide-publish-guard": (
        *(ADDRESS, NEAREST, WIDE),
        "at.member == 0 && row < rows",
        "at.member == 0",
    ),
    "wide-low-product": (
        *(ADDRESS, NEAREST, WIDE),
        "multiply_tf32(sums, low[m], code_high);",
        "",
    ),
    "wide-rank": (*(ADDRESS, NEAREST, WIDE), "scores[m][n][2 + j], code", "scores[m][n][j], code"),
    "small-barrier": (*(THREAD, RACES, SMALL), "__syncthreads();", ""),
    "small-row-guard": (*(ADDRESS, NEAREST, SMALL), "row < x.rows ? row : x.rows - 1", "row"),
    "small-publish-guard": (*(ADDRESS, NEAREST, SMALL), "if (row < x.rows) publish", "publish"),
    "small-second": (
        *(ADDRESS, NEAREST, SMALL),
        "found{-INFINITY, top[r].second, 0}",
        "found{-INFINITY, -INFINITY, 0}",
    ),
    "settle-barrier": (
        *(THREAD, RACES, STEPS),
        "__syncthreads();  // also",
        "// also",
    ),
    "settle-divergence": (
        *(ADDRESS, NEAREST, STEPS),
        "__syncthreads();  // also",
        "if (threadIdx.x < 64) __syncthreads();  // also",
    ),
    "settle-tie": (*(ADDRESS, NEAREST, STEPS), "other.code < code", "other.code > code"),
    "settle-threshold": (
        *(ADDRESS, NEAREST, STEPS),
        "safe ? score - margin : -INFINITY",
        "safe ? score : -INFINITY",
    ),
    "no-margin": (*(ADDRESS, NEAREST, STEPS), "> margin) {", "> 0.0f) {"),
    "tensor-margin": (
        *(ADDRESS, NEAREST, "nearest_common.cuh"),
        "0.125 * table.width + 100",
        "0.125 * table.width + 4",
    ),
    "publish-loser": (
        *(ADDRESS, NEAREST, "nearest_common.cuh"),
        "loser < second ? loser : second",
        "second",
    ),
    "ema-warp-barrier": (
        *(THREAD, RACES, "ema_kernels.cuh"),
        "__syncwarp();  // the offsets are read",
        "// the offsets are read",
    ),
    "ema-scan-barrier": (
        *(THREAD, RACES, "ema_kernels.cuh"),
        "now = 1 - now;\n      __syncthreads();",
        "now = 1 - now;",
    ),
    "ema-rank": (*(ADDRESS, EMA, "ema_kernels.cuh"), "offsets[code] + rank", "offsets[code]"),
    "ema-order": (*(ADDRESS, EMA, "ema_kernels.cuh"), "(1u << lane) - 1", "~((2u << lane) - 1)"),
    "ema-guard": (*(ADDRESS, EMA, "ema_kernels.cuh"), "if (code >= work.size) return;", ""),
}


def runs_clean(sanitizer: str, test: str, sources: Path) -> bool:
    program = sources / "test"
    command = ["g++", *FLAGS, f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    source = sources / "tests" / f"{test}.cpp"
    subprocess.run([*command, "-I", str(sources), str(source), "-o", str(program)], check=True)
    result = subprocess.run(
        ["setarch", "--addr-no-randomize", str(program)],
        env=os.environ | {"TSAN_OPTIONS": "halt_on_error=1", "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True,
        timeout=600,
        check=False,
    )
    return result.returncode == 0


def survives(name: str, build: Path) -> bool:
    sanitizer, test, file, right, wrong = MUTANTS[name]
    sources = build / name
    shutil.rmtree(sources, ignore_errors=True)
    shutil.copytree(CSRC, sources)
    path = sources / "cuda" / file
    text = path.read_text()
    if text.count(right) != 1:
        sys.exit(f"{name}: {right!r} stands {text.count(right)} times in {file}")
    path.write_text(text.replace(right, wrong))
    alive = runs_clean(sanitizer, test, sources)
    print(f"{name}: {'NOT NOTICED' if alive else 'noticed'}", flush=True)
    shutil.rmtree(sources)
    return alive


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    build, names = Path(sys.argv[1]), sys.argv[2:] or list(MUTANTS)
    with ThreadPoolExecutor(2) as pool:
        alive = list(pool.map(lambda name: survives(name, build), names))
    if any(alive):
        sys.exit(f"{sum(alive)} of {len(names)} mistakes are not noticed")
    print(f"all {len(names)} mistakes are noticed")


if __name__ == "__main__":
    main()
