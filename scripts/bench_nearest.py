"""Speed, memory and exactness of the codebook lookup, beside what else there is to do it with.

All contenders take turns in one process. Per shape, kind of data and number of threads: median
time (by the wall, or of the processor), ratio to the fastest rival, GF/s (2 N D K / time) and their
share of this machine's float32 multiply-add peak (scripts/fma_peak.cpp, compiled here), codes that
differ from the float64 answer (on up to 4096 rows), and peak memory beyond what was there before
the call.

Rivals (bench_nearest_rivals.py) that hold all N x K distances are left out where these are more
than 1 GiB. Results are merged into the file given with --json, so that the work can be done in
pieces. --suite measures what that file lacks of the cases of the README, each in a process of its
own (started with --prefix, if some command gives a quiet machine), within --minutes: a slow
contender then has fewer turns, one at least, or is named as left out. Tables and plot follow.

    pip install ".[bench]"
    python scripts/bench_nearest.py --shape 65536,64,1024 --threads 1 2 --json results.json
    python scripts/bench_nearest.py --data latents patches --json results.json
    python scripts/bench_nearest.py --suite --threads 1 2 --json results.json --plot lookup.svg
    python scripts/bench_nearest.py --report results.json --plot lookup.svg
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_nearest_data import DATA, Case
from bench_nearest_report import (
    describe,
    key,
    plot,
    read_entries,
    readme_table,
    table,
    write_entries,
)
from bench_nearest_rivals import Lookup, contenders
from threadpoolctl import ThreadpoolController

from vqtok.cli import exit_code
from vqtok.ops import native, reference

SHAPES = [
    (65536, 4, 1024),
    (65536, 8, 1024),
    (65536, 8, 16384),
    (65536, 32, 8192),
    (65536, 64, 512),
    (65536, 64, 1024),
    (65536, 256, 1024),
    (16384, 512, 4096),
    (16384, 256, 16384),
    (256, 8, 16384),
    (75, 128, 1024),
]
NEVER_LEFT_OUT = ("vqtok", "vqtok float32", "numpy", "faiss")
SLOW = 0.05  # seconds of a call; of shorter ones, as many are timed together as
TURN = 0.02  # seconds hold: the first finds the caches as the contender before has left them
START_UP = 8  # seconds, more than a process of the suite takes before it measures
SUITE = [
    *(("gaussian", shape) for shape in SHAPES),
    ("patches", (65536, 8, 16384)),
    ("latents", (65536, 32, 1024)),
    ("adversarial", (65536, 8, 1024)),
    ("adversarial", (65536, 64, 1024)),
]
# --- Measuring ------------------------------------------------------------------------------------


def fma_peak(threads: int) -> float:
    """GF/s of float32 multiply-adds in registers."""
    source = Path(__file__).with_name("fma_peak.cpp")
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "fma_peak")
        flags = ["-O3", "-march=native", "-fopenmp"]
        compiler = os.environ.get("CXX", "c++")
        subprocess.run([compiler, *flags, str(source), "-o", program], check=True)
        done = subprocess.run(
            [program, str(threads)], check=True, capture_output=True, text=True, env={}
        )
    return float(done.stdout)


def memory(field: str) -> int:
    """VmRSS or VmHWM of this process, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) << 10
    raise OSError(f"/proc/self/status has no {field}: this script needs Linux")


def first_call(lookup: Lookup) -> tuple[float, int, np.ndarray]:
    """Seconds of a call, peak bytes beyond what was resident before it, and the codes it found."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before, start = memory("VmRSS"), time.perf_counter()
    codes = lookup()
    taken = time.perf_counter() - start
    extra = max(0, memory("VmHWM") - before)
    return taken, extra, np.asarray(codes).astype(np.int64)


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def seconds(lookup: Lookup, calls: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(calls):
        lookup()
    return (clock() - start) / calls


def limit_blas(threads: int) -> None:
    """Threads of every BLAS loaded; one for numpy's, whose contender has threads of its own."""
    for library in ThreadpoolController().select(user_api="blas").lib_controllers:
        library.set_num_threads(1 if "numpy" in library.filepath else threads)


def measure(case: Case, threads: int, options: argparse.Namespace) -> dict[str, Any]:
    """All contenders on one case, taking turns until each had --repeats or --seconds."""
    torch.set_num_threads(threads)
    head = case.x[:4096]
    want = reference.nearest(head, case.codebook).numpy()
    clock = CLOCKS[options.clock]
    end = time.monotonic() + options.case_seconds
    results: dict[str, dict[str, Any]] = {}
    lookups: dict[str, Lookup] = {}
    times: dict[str, list[float]] = {}
    calls: dict[str, int] = {}
    for name, lookup in contenders(case, threads, options.only):
        if name not in NEVER_LEFT_OUT and time.monotonic() > end:
            print(f"{name}: left out, no time", file=sys.stderr)
            continue
        limit_blas(threads)  # each contender brings its own
        taken, extra, codes = first_call(lookup)
        wrong = int((codes[: len(want)] != want).sum())
        results[name] = {"extra_mib": extra / 2**20, "wrong": wrong, "checked": len(want)}
        lookups[name], times[name] = lookup, []
        if taken < SLOW:
            taken = seconds(lookup, 1, clock)
        calls[name] = max(1, min(400, int(TURN / taken)))
    for turn in range(options.repeats):
        for name, lookup in lookups.items():
            if sum(times[name]) * calls[name] < options.seconds:
                times[name].append(seconds(lookup, calls[name], clock))
            if turn and time.monotonic() > end:
                break
    for name, row in results.items():
        row["ms"] = 1e3 * float(np.median(times[name]))
        row["repeats"] = len(times[name])
    return results


def environment() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), cpu)
    return {"cpu": cpu, "cpus": os.cpu_count(), "isa": native.isa(), "torch": torch.__version__}


def run(options: argparse.Namespace) -> None:
    """Measures the cases asked for, and keeps each as soon as it is there."""
    for threads in options.threads:
        peak = fma_peak(threads)
        for kind in options.data:
            for shape in options.shape or SHAPES:
                case = DATA[kind](*shape)
                results = measure(case, threads, options)
                entry = {"data": kind, "shape": list(case.shape), "threads": threads}
                entry["clock"] = options.clock
                entry |= {"peak_gflops": peak, "results": results, "machine": environment()}
                print(describe(entry), flush=True)
                options.entries[key(entry)] = entry
                if options.json:
                    write_entries(options.json, [entry])


def run_suite(options: argparse.Namespace) -> None:
    """The cases of the README that the file lacks, each in a process of its own."""
    known = read_entries([options.json])
    wanted = [
        {"data": kind, "shape": list(shape), "threads": threads, "clock": options.clock}
        for threads in options.threads
        for kind, shape in SUITE
    ]
    wanted = [case for case in wanted if key(case) not in known]
    end = time.monotonic() + 60 * options.minutes
    for left, case in zip(range(len(wanted), 0, -1), wanted, strict=True):
        share = max(3.0, (end - time.monotonic()) / left - START_UP)
        command = [*shlex.split(options.prefix), sys.executable, __file__, "--json", options.json]
        command += ["--data", case["data"], "--shape", ",".join(map(str, case["shape"]))]
        command += ["--threads", str(case["threads"]), "--clock", options.clock]
        command += ["--repeats", str(options.repeats), "--case-seconds", str(share)]
        command += ["--seconds", str(min(options.seconds, share / 12))]
        command += ["--only", *options.only] if options.only else []
        if subprocess.run(command).returncode:
            print(f"not measured: {case}", file=sys.stderr)
    options.entries = read_entries([options.json])


def shape(text: str) -> tuple[int, ...]:
    numbers = tuple(int(part) for part in text.split(","))
    if len(numbers) != 3 or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not N,D,K")
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=shape, nargs="+", metavar="N,D,K", help="instead of all")
    parser.add_argument("--data", nargs="+", choices=DATA, default=["gaussian"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these contenders")
    parser.add_argument("--repeats", type=int, default=15, help="turns; the median counts")
    parser.add_argument("--seconds", type=float, default=3, help="most that one contender may take")
    parser.add_argument(
        "--case-seconds", type=float, default=1e9, help="after which turns of a case end"
    )
    parser.add_argument("--minutes", type=float, default=12, help="that --suite may take")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: processor time, which other work on the machine disturbs less; for one thread",
    )
    parser.add_argument("--suite", action="store_true", help="the cases of the README (--json)")
    parser.add_argument("--prefix", default="", help="of the command that measures one of them")
    parser.add_argument("--json", help="merge results into this file")
    parser.add_argument("--report", nargs="+", metavar="JSON", help="measure nothing: tabulate")
    parser.add_argument("--plot", help="draw the results")
    options = parser.parse_args()
    if options.clock == "cpu" and options.threads != [1]:
        parser.error("--clock cpu adds up the time of all threads: it needs --threads 1")
    if options.suite and not options.json:
        parser.error("--suite needs --json FILE")
    options.entries = read_entries(options.report or [])
    if options.suite:
        run_suite(options)
    elif not options.report:
        warnings.simplefilter("ignore")
        run(options)
    entries = list(options.entries.values())
    machines = {json.dumps(entry["machine"], sort_keys=True) for entry in entries}
    print("\n".join(["", *sorted(machines), "", table(entries), "", readme_table(entries)]))
    if options.plot:
        plot(entries, options.plot)


if __name__ == "__main__":
    sys.exit(exit_code(main))
