"""Speed, memory and exactness of the codebook lookup, beside what else there is to do it with.

All contenders take turns in one process. Per shape, kind of data and number of threads: median
time (by the wall, or of the processor), ratio to the fastest rival, GF/s (2 N D K / time) and their
share of this machine's float32 multiply-add peak (scripts/fma_peak.cpp, compiled here), codes that
differ from the float64 answer (on up to 4096 rows), and peak memory beyond what was there before
the call.

Rivals may prepare their index of the codebook outside the clock. `numpy` is the strongest form of
the common one that we found: matrix products of 1 M scores at a time, argmax, one Python thread
per chunk with one BLAS thread each.

Rivals that hold all N x K distances are left out where these are more than 1 GiB. Results are
merged into the file given with --json, so that the work can be done in pieces; --suite measures
what that file lacks of the cases of the README, each in a process of its own (started with
--prefix, if some command gives a quiet machine), and ends with the table and the plot of all.

    pip install ".[bench]"
    python scripts/bench_nearest.py --shape 65536,64,1024 --threads 1 2 --json results.json
    python scripts/bench_nearest.py --data latents patches --json results.json
    python scripts/bench_nearest.py --suite --json results.json --plot bench_nearest.svg
    python scripts/bench_nearest.py --report results.json --plot bench_nearest.svg
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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_nearest_data import DATA, Case
from threadpoolctl import ThreadpoolController
from torch import Tensor

from vqtok import ops
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
SUITE = [
    *(("gaussian", shape) for shape in SHAPES),
    ("patches", (65536, 8, 16384)),
    ("latents", (65536, 32, 1024)),
    ("adversarial", (65536, 8, 1024)),
    ("adversarial", (65536, 64, 1024)),
]
OURS = "vqtok"
MATRIX = ("addmm", "compile", "cdist", "vector-quantize-pytorch")  # hold all N x K distances
MOST_DISTANCES = 1 << 28
CHUNK = 1 << 20  # scores at a time
Lookup = Callable[[], Any]


# --- Contenders: each takes a case and a number of threads and gives a lookup ---------------------


def vqtok(method: str) -> Callable[[Case, int], Lookup]:
    def make(case: Case, threads: int) -> Lookup:
        def lookup() -> Tensor:
            with native.force_method(method):
                return ops.nearest(case.x, case.codebook)

        return lookup

    return make


def cdist(case: Case, threads: int) -> Lookup:
    return lambda: torch.cdist(case.x, case.codebook).argmin(dim=1)


def scores(x: Tensor, transposed: Tensor, half: Tensor) -> Tensor:
    return torch.addmm(half, x, transposed).argmax(dim=1)


def addmm(case: Case, threads: int) -> Lookup:
    transposed, half = case.codebook.T, -0.5 * case.codebook.square().sum(dim=1)
    return lambda: scores(case.x, transposed, half)


def addmm_chunked(case: Case, threads: int) -> Lookup:
    transposed, half = case.codebook.T, -0.5 * case.codebook.square().sum(dim=1)
    step = max(1, CHUNK // len(case.codebook))
    return lambda: torch.cat([scores(rows, transposed, half) for rows in case.x.split(step)])


def compiled(case: Case, threads: int) -> Lookup:
    transposed, half = case.codebook.T, -0.5 * case.codebook.square().sum(dim=1)
    function = torch.compile(scores, dynamic=False)
    return lambda: function(case.x, transposed, half)


def vqp(case: Case, threads: int) -> Lookup:
    from vector_quantize_pytorch import VectorQuantize

    size, dim = case.codebook.shape
    layer = VectorQuantize(dim=dim, codebook_size=size).eval()
    layer._codebook.embed.data.copy_(case.codebook[None])

    def lookup() -> Any:
        with torch.no_grad():
            return layer(case.x[None])[1][0]

    return lookup


def faiss_flat(case: Case, threads: int) -> Lookup:
    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatL2(case.codebook.shape[1])
    index.add(case.codebook.numpy())
    return lambda: index.search(case.x.numpy(), 1)[1][:, 0]


def sklearn(case: Case, threads: int) -> Lookup:
    from sklearn.metrics import pairwise_distances_argmin

    return lambda: pairwise_distances_argmin(case.x.numpy(), case.codebook.numpy())


def numpy_chunks(case: Case, threads: int) -> Lookup:
    x, codebook = case.x.numpy(), case.codebook.numpy()
    transposed, half = codebook.T, 0.5 * np.square(codebook).sum(axis=1)
    step = max(1, min(CHUNK // len(codebook), -(-len(x) // threads)))
    pool = ThreadPoolExecutor(threads)
    buffers = [np.empty((step, len(codebook)), np.float32) for _ in range(threads)]
    codes = np.empty(len(x), np.int64)

    def share(member: int) -> None:
        for start in range(member * step, len(x), threads * step):
            rows = x[start : start + step]
            chunk = buffers[member][: len(rows)]
            np.matmul(rows, transposed, out=chunk)
            chunk -= half
            chunk.argmax(axis=1, out=codes[start : start + step])

    def lookup() -> Any:
        if threads == 1:
            share(0)
        else:
            list(pool.map(share, range(threads)))
        return codes

    return lookup


def scipy_tree(case: Case, threads: int) -> Lookup:
    from scipy.spatial import cKDTree

    tree = cKDTree(case.codebook.numpy())
    return lambda: tree.query(case.x.numpy(), workers=threads)[1]


def pykdtree_tree(case: Case, threads: int) -> Lookup:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    from pykdtree.kdtree import KDTree

    tree = KDTree(case.codebook.numpy())
    return lambda: tree.query(case.x.numpy())[1]


CONTENDERS: dict[str, Callable[[Case, int], Lookup]] = {
    OURS: vqtok("auto"),
    "vqtok float32": vqtok("float32"),
    "numpy": numpy_chunks,
    "faiss": faiss_flat,
    "addmm chunked": addmm_chunked,
    "addmm": addmm,
    "compile": compiled,
    "cdist": cdist,
    "sklearn": sklearn,
    "vector-quantize-pytorch": vqp,
    "cKDTree": scipy_tree,
    "pykdtree": pykdtree_tree,
}
TREES = ("cKDTree", "pykdtree")
TREE_DIM = 8  # beyond, trees visit everything


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


def extra_memory(lookup: Lookup) -> tuple[int, np.ndarray]:
    """Peak bytes of one call beyond what was resident before it, and the codes it found."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = memory("VmRSS")
    codes = lookup()
    extra = max(0, memory("VmHWM") - before)
    return extra, np.asarray(codes).astype(np.int64)


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def seconds(lookup: Lookup, calls: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(calls):
        lookup()
    return (clock() - start) / calls


def contenders(case: Case, threads: int, only: list[str]) -> Iterator[tuple[str, Lookup]]:
    for name, make in CONTENDERS.items():
        rows, dim, size = case.shape
        if (only and name not in only) or (name in TREES and dim > TREE_DIM):
            continue
        if name in MATRIX and rows * size > MOST_DISTANCES:
            continue
        try:
            yield name, make(case, threads)
        except ImportError as error:
            print(f"{name}: left out, {error}", file=sys.stderr)


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
    results: dict[str, dict[str, Any]] = {}
    lookups: dict[str, Lookup] = {}
    times: dict[str, list[float]] = {}
    calls: dict[str, int] = {}
    for name, lookup in contenders(case, threads, options.only):
        limit_blas(threads)  # each contender brings its own
        extra, codes = extra_memory(lookup)
        wrong = int((codes[: len(want)] != want).sum())
        results[name] = {"extra_mib": extra / 2**20, "wrong": wrong, "checked": len(want)}
        lookups[name], times[name] = lookup, []
        calls[name] = max(1, min(100, int(2e-3 / seconds(lookup, 1, clock))))
    for _ in range(options.repeats):
        for name, lookup in lookups.items():
            if sum(times[name]) * calls[name] < options.seconds:
                times[name].append(seconds(lookup, calls[name], clock))
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
    for threads in options.threads:
        for kind, (rows, dim, size) in SUITE:
            wanted = {"data": kind, "shape": [rows, dim, size], "threads": threads}
            if key(wanted | {"clock": options.clock}) in read_entries([options.json]):
                continue
            command = [*shlex.split(options.prefix), sys.executable, __file__]
            command += ["--data", kind, "--shape", f"{rows},{dim},{size}", "--json", options.json]
            command += ["--threads", str(threads), "--clock", options.clock]
            command += ["--repeats", str(options.repeats), "--seconds", str(options.seconds)]
            command += ["--only", *options.only] if options.only else []
            if subprocess.run(command).returncode:
                print(f"not measured: {wanted}", file=sys.stderr)
    options.entries = read_entries([options.json])


def key(entry: dict[str, Any]) -> str:
    return json.dumps([entry["data"], entry["shape"], entry["threads"], entry["clock"]])


def read_entries(paths: list[str]) -> dict[str, dict[str, Any]]:
    files = [json.loads(Path(path).read_text()) for path in paths if Path(path).exists()]
    return {key(entry): entry for entries in files for entry in entries}


def write_entries(path: str, entries: list[dict[str, Any]]) -> None:
    merged = read_entries([path]) | {key(entry): entry for entry in entries}
    Path(path).write_text(json.dumps(list(merged.values()), indent=1) + "\n")


# --- Reporting ------------------------------------------------------------------------------------


def gflops(entry: dict[str, Any], name: str) -> float:
    rows, dim, size = entry["shape"]
    return 2e-6 * rows * dim * size / float(entry["results"][name]["ms"])


def best_rival(entry: dict[str, Any]) -> str | None:
    rivals = [name for name in entry["results"] if not name.startswith(OURS)]
    return min(rivals, key=lambda name: entry["results"][name]["ms"], default=None)


def describe(entry: dict[str, Any]) -> str:
    """One case in full."""
    head = f"{entry['data']} N, D, K = {entry['shape']}, {entry['threads']} threads"
    lines = [f"{head}, peak {entry['peak_gflops']:.0f} GF/s"]
    for name, row in sorted(entry["results"].items(), key=lambda item: item[1]["ms"]):
        speed = gflops(entry, name)
        lines.append(
            f"  {name:24}{row['ms']:10.3f} ms {speed:8.1f} GF/s "
            f"{100 * speed / entry['peak_gflops']:5.0f} % {row['extra_mib']:8.1f} MiB "
            f"{row['wrong']:5} wrong of {row['checked']}"
        )
    return "\n".join(lines)


def table(entries: list[dict[str, Any]]) -> str:
    head = "data | N, D, K | threads, clock | ms | best rival, ms | ratio | float32, % of peak"
    head += " | wrong: ours, rivals | extra MiB: ours, cdist"
    lines = [f"| {head} |", "|" + "---|" * (head.count("|") + 1)]
    for entry in entries:
        results, rival = entry["results"], best_rival(entry)
        ours = results[OURS]
        row = [entry["data"], ", ".join(map(str, entry["shape"]))]
        row.append(f"{entry['threads']}, {entry['clock']}")
        row.append(f"{ours['ms']:.3g}")
        if rival is None:
            row += ["-", "-"]
        else:
            other = results[rival]["ms"]
            row += [f"{rival} {other:.3g}", f"{other / ours['ms']:.1f}"]
        plain, share = "vqtok float32", "-"
        if plain in results:
            share = f"{100 * gflops(entry, plain) / entry['peak_gflops']:.0f}"
        wrong = max((r["wrong"] for n, r in results.items() if not n.startswith(OURS)), default=0)
        matrix = f"{results['cdist']['extra_mib']:.0f}" if "cdist" in results else "-"
        row += [share, f"{ours['wrong']}, {wrong}", f"{ours['extra_mib']:.1f}, {matrix}"]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def plot(entries: list[dict[str, Any]], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 1.5 + 0.3 * len(entries)))
    names = [name for name in CONTENDERS if any(name in e["results"] for e in entries)]
    for name in names:
        points = [(gflops(e, name), i) for i, e in enumerate(entries) if name in e["results"]]
        ours = name.startswith(OURS)
        axes.plot(*zip(*points, strict=True), "D" if ours else "o", label=name, alpha=0.8)
    for i, entry in enumerate(entries):
        axes.plot([entry["peak_gflops"]] * 2, [i - 0.4, i + 0.4], color="black", linewidth=1)
    labels = [f"{e['data']} {tuple(e['shape'])} x{e['threads']}" for e in entries]
    axes.set_yticks(range(len(entries)), labels)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("2 N D K / time, GF/s; black: float32 multiply-add peak")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=7, ncols=2)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


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
    print("\n" + "\n".join(sorted(machines)) + "\n\n" + table(entries))
    if options.plot:
        plot(entries, options.plot)


if __name__ == "__main__":
    main()
