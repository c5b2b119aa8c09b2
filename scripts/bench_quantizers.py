"""Time and memory of each quantizer, forward and backward, beside vector-quantize-pytorch.

The rival is optional (``pip install vector-quantize-pytorch``); without it its columns are empty.
Every case runs in a process of its own, so that its peak memory is its own: the growth of the
peak resident set over what importing, inputs and codebooks take. On a GPU it is torch's peak. The
two libraries take turns, ``--rounds`` times; times are the median over rounds of each round's
median, ratios the median of the rounds' ratios.

    python scripts/bench_quantizers.py
    python scripts/bench_quantizers.py --positions 16384 --codebook-size 16384 --dim 16 --json
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vqtok.cli import exit_code

LIBRARIES = ("vqtok", "vector-quantize-pytorch")
MODES = ("train", "eval")
Step = Callable[[Tensor], Tensor]


def ours(name: str, dim: int, size: int) -> tuple[nn.Module, int, Step]:
    """A quantizer of ours, the dimension it takes, and its forward to a scalar loss."""
    from vqtok import quantizers as vq

    bits = round(math.log2(size))
    levels = [4] * (bits // 2)
    makers: dict[str, Callable[[], vq.Quantizer]] = {
        "vector": lambda: vq.VectorQuantizer(size, dim),
        "vector-cosine": lambda: vq.VectorQuantizer(size, dim, cosine=True),
        "residual-4": lambda: vq.ResidualQuantizer(
            [vq.VectorQuantizer(size, dim) for _ in range(4)]
        ),
        "grouped-2": lambda: vq.GroupedQuantizer(
            [vq.VectorQuantizer(size, dim // 2) for _ in range(2)]
        ),
        "simvq": lambda: vq.SimVQ(size, dim),
        "fsq": lambda: vq.FSQ(levels),
        "residual-fsq-4": lambda: vq.residual_fsq(levels, 4),
        "lfq": lambda: vq.LFQ(bits),
        "bsq": lambda: vq.BSQ(bits),
        "ibq": lambda: vq.IBQ(size, dim),
        "gumbel": lambda: vq.GumbelQuantizer(size, dim),
        "random-projection": lambda: vq.RandomProjectionQuantizer(size, dim, codebook_dim=8),
    }
    quantizer = makers[name]()

    def step(x: Tensor) -> Tensor:
        result = quantizer(x)
        losses = sum(result.losses.values(), torch.zeros((), device=x.device))
        return result.quantized.float().square().mean() + losses

    return quantizer, quantizer.dim, step


def rival(name: str, dim: int, size: int) -> tuple[nn.Module, int, Step] | None:
    """The same method of vector-quantize-pytorch, with the same settings; None if it has none."""
    import vector_quantize_pytorch as vqp

    bits = round(math.log2(size))
    settings = {"decay": 0.99, "kmeans_init": True, "threshold_ema_dead_code": 2}
    makers: dict[str, tuple[int, Callable[[], nn.Module]]] = {
        "vector": (
            dim,
            lambda: vqp.VectorQuantize(
                dim=dim, codebook_size=size, rotation_trick=False, **settings
            ),
        ),
        "vector-cosine": (
            dim,
            lambda: vqp.VectorQuantize(
                dim=dim,
                codebook_size=size,
                rotation_trick=False,
                use_cosine_sim=True,
                **settings,
            ),
        ),
        "residual-4": (
            dim,
            lambda: vqp.ResidualVQ(
                dim=dim, num_quantizers=4, codebook_size=size, rotation_trick=False, **settings
            ),
        ),
        "grouped-2": (
            dim,
            lambda: vqp.GroupedResidualVQ(
                dim=dim,
                groups=2,
                num_quantizers=1,
                codebook_size=size,
                rotation_trick=False,
                **settings,
            ),
        ),
        "simvq": (
            dim,
            lambda: vqp.SimVQ(dim=dim, codebook_size=size, rotation_trick=False),
        ),
        "fsq": (bits // 2, lambda: vqp.FSQ([4] * (bits // 2))),
        "residual-fsq-4": (
            bits // 2,
            lambda: vqp.ResidualFSQ(dim=bits // 2, levels=[4] * (bits // 2), num_quantizers=4),
        ),
        "lfq": (bits, lambda: vqp.LFQ(dim=bits, codebook_size=size)),
        "bsq": (bits, lambda: vqp.LFQ(dim=bits, codebook_size=size, spherical=True)),
        "random-projection": (
            dim,
            lambda: vqp.RandomProjectionQuantizer(
                dim=dim, codebook_size=size, codebook_dim=8, num_codebooks=1
            ),
        ),
    }
    if name not in makers:
        return None
    width, make = makers[name]
    module = make()

    def step(x: Tensor) -> Tensor:
        result = module(x)
        if name == "random-projection":  # gives codes alone
            return x.square().mean()
        quantized, *others = result
        losses = [
            value.sum() for value in others if torch.is_tensor(value) and value.is_floating_point()
        ]
        return quantized.square().mean() + sum(losses, torch.zeros((), device=x.device))

    return module, width, step


NAMES = (
    "vector",
    "vector-cosine",
    "residual-4",
    "grouped-2",
    "simvq",
    "fsq",
    "residual-fsq-4",
    "lfq",
    "bsq",
    "ibq",
    "gumbel",
    "random-projection",
)


def measure(
    library: str, name: str, mode: str, options: argparse.Namespace
) -> dict[str, float] | None:
    """Milliseconds and MiB of a training step, or of an evaluation, in this process."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    made = (ours if library == LIBRARIES[0] else rival)(name, options.dim, options.codebook_size)
    if made is None:
        return None
    module, width, step = made
    module.to(options.device)
    x = torch.randn(1, options.positions, width, device=options.device)

    def train() -> None:
        inputs = x.clone().requires_grad_(True)
        loss = step(inputs)
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]

    def evaluate() -> None:
        with torch.no_grad():
            step(x)

    run = train if mode == "train" else evaluate
    module.train(mode == "train")
    before = peak_memory(options.device)
    run()  # k-means, caches, memory
    memory = (peak_memory(options.device) - before) / 2**20
    run()
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    times = []
    for _ in range(options.repeats):
        start = clock()
        run()
        if options.device == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - start)
    return {f"{mode}_mib": memory, f"{mode}_ms": 1e3 * statistics.median(times)}


def peak_memory(device: str) -> float:
    """Bytes at the highest so far."""
    if device == "cuda":
        torch.cuda.synchronize()
        return float(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak * (1 if platform.system() == "Darwin" else 1024))


def in_own_processes(library: str, name: str, arguments: list[str]) -> dict[str, float] | None:
    """Training and evaluation, each in a process of its own."""
    outcome: dict[str, float] = {}
    for mode in MODES:
        command = [sys.executable, __file__, *arguments, "--case", library, name, mode]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["no message"]
            print(f"{library} {name}: {lines[-1]}", file=sys.stderr)
            return None
        outcome.update(json.loads(done.stdout) or {})
    return outcome or None


def cell(rounds: list[dict[str, dict[str, float] | None]], key: str) -> str:
    """Ours, theirs and the ratio theirs / ours, medians over the rounds."""
    columns = [[turn[name][key] for turn in rounds if turn.get(name)] for name in LIBRARIES]
    ours, theirs = (f"{statistics.median(column):.1f}" if column else "-" for column in columns)
    if not all(columns):
        return f"{ours} / {theirs}"
    ratio = statistics.median(b / max(a, 0.1) for a, b in zip(*columns, strict=True))
    return f"{ours} / {theirs} ({ratio:.1f}x)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--positions", type=int, default=65536, help="latents per step")
    parser.add_argument("--codebook-size", type=int, default=1024, help="a power of 4")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5, help="timed steps; the median counts")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each library")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: processor time, for a machine that has other work (with --threads 1)",
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    bits = options.codebook_size.bit_length() - 1
    if options.codebook_size != 2**bits or bits % 2:
        parser.error("--codebook-size must be a power of 4, so that FSQ and bits match it")
    if options.case:
        print(json.dumps(measure(*options.case, options)))
        return
    installed = importlib.util.find_spec("vector_quantize_pytorch") is not None
    if not installed:
        print("vector-quantize-pytorch is not installed: no comparison", file=sys.stderr)
    rows: dict[str, Any] = {}
    for name in options.only:
        rows[name] = [
            {
                library: in_own_processes(library, name, sys.argv[1:])
                for library in LIBRARIES[: 2 if installed else 1]
            }
            for _ in range(options.rounds)
        ]
    if options.json:
        print(json.dumps({"options": vars(options), "torch": torch.__version__, "rows": rows}))
        return
    print(
        f"{options.positions} latents, K = {options.codebook_size}, D = {options.dim}, "
        f"{options.threads} threads, torch {torch.__version__}; ours / theirs (ratio)\n"
    )
    print("| quantizer | train ms | eval ms | train MiB | eval MiB |\n|---|---|---|---|---|")
    for name, rounds in rows.items():
        columns = [cell(rounds, key) for key in ("train_ms", "eval_ms", "train_mib", "eval_mib")]
        print(f"| {name} | {' | '.join(columns)} |")


if __name__ == "__main__":
    sys.exit(exit_code(main))
