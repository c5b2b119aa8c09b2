"""Bits per code of the entropy tier beside bit packing, order-0 coding and byte compressors.

    python scripts/bench_entropy.py photo KODAK [MORE...] [--threads 1 2] [--plot codes.svg]
    python scripts/bench_entropy.py photo CORPUS --ablate 1500 --judge KODAK

Every DATA is images or sounds (encoded first) or a token dataset, and gets a table of its own:

- bits: ceil(log2 K);
- order-0: constriction's static ANS with the frequencies of these very data, one table for each
  codebook, which is not counted;
- zstd -19 and PPMd: all codes of a codebook as one piece, as uint16 or as all low bytes before all
  high bytes, whichever is smaller;
- adaptive: streams without a prior, one for each sample and codebook, all their bytes;
- prior alone: by what it was trained on, as in token files of format version 1;
- prior: mixed with what the sample itself shows, as `--pack entropy` does;
- model: what the prior's probabilities say, which the streams of the prior alone come up to.

Speeds are those of the tier, codes of all codebooks a second, best of ROUNDS. Needs the extra
`bench`. --ablate trains small priors with fewer and fewer contexts (STEPS each, not shipped) on the
first DATA and judges them by --judge.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from vqtok.cli import exit_code
from vqtok.cli.train_prior import read_codes
from vqtok.ops import entropy
from vqtok.tokenizer import Tokenizer
from vqtok.tokens.models import Alone, Model
from vqtok.tokens.prior import Prior
from vqtok.training.prior.fit import PriorConfig, codebook_vectors, fit_twin, mean_bits
from vqtok.training.prior.grids import Grids
from vqtok.training.prior.plan import NetworkPlan, PriorPlan, contexts_of
from vqtok.training.prior.twin import FloatTwin

Planes = list[np.ndarray]
"""Codes of each sample, uint32 [Q, A, B]."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tokenizer")
    parser.add_argument("data", nargs="+")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, help="use the first so many samples only")
    parser.add_argument("--plot", type=Path, help="bars of the first DATA")
    parser.add_argument("--ablate", type=int, metavar="STEPS")
    parser.add_argument("--judge")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_pretrained(args.tokenizer)
    if args.ablate:
        ablate(tokenizer, *(samples_of(d, tokenizer) for d in (args.data[0], args.judge)), args)
        return
    results = {}
    for data in args.data:
        samples = samples_of(data, tokenizer)[: args.limit]
        planes = [np.ascontiguousarray(np.moveaxis(s, -1, 0), np.uint32) for s in samples]
        rates = bits_per_code(planes, tokenizer.codebook_sizes, tokenizer.prior)
        speeds = speeds_of(planes, tokenizer, args.threads, args.rounds)
        results[data] = {"samples": len(samples), "bits_per_code": rates, "speed": speeds}
        if not args.json:
            show(data, results[data])
    if args.json:
        print(json.dumps(results))
    if args.plot:
        plot(args.plot, results[args.data[0]]["bits_per_code"])


def samples_of(data: str, tokenizer: Tokenizer) -> list[np.ndarray]:
    """Codes [A, B, Q] of every sample."""
    samples, failed = read_codes([data], tokenizer, 1)
    if failed:
        raise SystemExit(f"{failed} inputs of {data} could not be read")
    return list(samples)


def bits_per_code(
    planes: Planes, sizes: tuple[int, ...], prior: Prior | None
) -> dict[str, list[float]]:
    """By rival or tier, for each codebook."""
    count = sum(p[0].size for p in planes)
    columns = [np.concatenate([p[q].ravel() for p in planes]) for q in range(len(sizes))]
    coders: dict[str, Callable[[np.ndarray, int], int]] = {
        "bits": lambda codes, size: (size - 1).bit_length() * len(codes),
        "order-0": order0_bits,
        "zstd -19": zstd_bits,
        "PPMd": ppmd_bits,
    }
    found = {
        name: [coder(codes, size) / count for codes, size in zip(columns, sizes, strict=True)]
        for name, coder in coders.items()
    }
    streams = [entropy.adaptive_encode(p, sizes) for p in planes]
    found["adaptive"] = streams_bits(streams, count)
    if prior is not None:
        models: dict[str, Model] = {"prior alone": Alone(prior.networks), "prior": prior}
        for name, model in models.items():
            found[name] = streams_bits([model.encode_planes(p) for p in planes], count)
        costs = sum(prior.costs(np.moveaxis(p, 0, -1)).sum((0, 1)) for p in planes)
        found["model"] = list(np.asarray(costs) / count)
    return found


def streams_bits(streams: list[list[bytes]], count: int) -> list[float]:
    return [8 * sum(map(len, each)) / count for each in zip(*streams, strict=True)]


def order0_bits(codes: np.ndarray, size: int) -> int:
    import constriction

    frequencies = np.bincount(codes, minlength=size).astype(np.float64)
    model = constriction.stream.model.Categorical(frequencies / frequencies.sum(), perfect=False)
    coder = constriction.stream.stack.AnsCoder()
    coder.encode_reverse(codes.astype(np.int32), model)
    return int(coder.num_bits())


def zstd_bits(codes: np.ndarray, size: int) -> int:
    import zstandard

    return smaller(codes, zstandard.ZstdCompressor(level=19).compress)


def ppmd_bits(codes: np.ndarray, size: int) -> int:
    import pyppmd

    return smaller(codes, lambda data: pyppmd.compress(data, max_order=6, mem_size=1 << 26))


def smaller(codes: np.ndarray, compress: Callable[[bytes], bytes]) -> int:
    words = codes.astype("<u2")
    in_planes = np.concatenate([(words & 255), (words >> 8)]).astype(np.uint8)
    return 8 * min(len(compress(words.tobytes())), len(compress(in_planes.tobytes())))


def speeds_of(
    planes: Planes, tokenizer: Tokenizer, threads: list[int], rounds: int
) -> dict[str, dict[str, float]]:
    """Codes a second by tier, direction and number of threads."""
    sizes, prior = tokenizer.codebook_sizes, tokenizer.prior
    tiers: dict[str, tuple[Any, Any]] = {
        "adaptive": (
            lambda p: entropy.adaptive_encode(p, sizes),
            lambda known, q, stream: entropy.adaptive_decode(known, q, sizes[q], stream),
        )
    }
    if prior is not None:
        alone = Alone(prior.networks)
        tiers["prior alone"] = (alone.encode_planes, alone.decode_plane)
        tiers["prior"] = (prior.encode_planes, prior.decode_plane)
    total = sum(p.size for p in planes)
    found: dict[str, dict[str, float]] = {}
    for name, (encode, decode) in tiers.items():
        for number in threads:
            torch.set_num_threads(number)
            times: dict[str, list[float]] = {"encode": [], "decode": []}
            for _ in range(rounds):
                began = time.perf_counter()
                streams = [encode(p) for p in planes]
                times["encode"].append(time.perf_counter() - began)
                began = time.perf_counter()
                again = [
                    decoded(p.shape, each, decode) for p, each in zip(planes, streams, strict=True)
                ]
                times["decode"].append(time.perf_counter() - began)
            assert all((a == p).all() for a, p in zip(again, planes, strict=True))
            unit = "thread" if number == 1 else "threads"
            found[f"{name}, {number} {unit}"] = {
                way: total / min(seconds) for way, seconds in times.items()
            }
    torch.set_num_threads(1)
    return found


def decoded(shape: tuple[int, ...], streams: list[bytes], decode: Any) -> np.ndarray:
    known = np.zeros(shape, np.uint32)
    for q, stream in enumerate(streams):
        decode(known, q, stream)
    return known


def show(data: str, result: dict[str, Any]) -> None:
    rates = result["bits_per_code"]
    codebooks = range(1, len(rates["bits"]) + 1)
    print(f"\n{data}: {result['samples']} samples, bits per code\n")
    print("| coder | " + " | ".join(map(str, codebooks)) + " | sum |")
    print("|" + "---|" * (len(codebooks) + 2))
    for name, bits in rates.items():
        values = " | ".join(f"{b:.2f}" for b in bits)
        print(f"| {name} | {values} | {sum(bits):.2f} |")
    print("\n| tier | encode, codes/s | decode, codes/s |\n|---|---|---|")
    for name, speed in result["speed"].items():
        print(f"| {name} | {speed['encode']:,.0f} | {speed['decode']:,.0f} |")


def plot(path: Path, rates: dict[str, list[float]]) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "vqtok"
    from matplotlib import pyplot as plt

    names = [name for name in rates if name != "model"]
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        places = np.arange(len(rates[name])) + (index - (len(names) - 1) / 2) * width
        axes.bar(places, rates[name], width, label=name)
    axes.set(ylabel="bits per code", xticks=range(len(rates["bits"])))
    axes.set_xticklabels([f"codebook {q + 1}" for q in range(len(rates["bits"]))])
    axes.legend(ncols=3, fontsize=8, loc="lower right", framealpha=0.9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def ablate(
    tokenizer: Tokenizer,
    trained: list[np.ndarray],
    judged: list[np.ndarray],
    args: argparse.Namespace,
) -> None:
    """Bits per code of the last of the first two codebooks, with more and more contexts."""
    vectors = codebook_vectors(tokenizer)
    print("| codebook | contexts | bits per code |\n|---|---|---|")
    for q, steps in enumerate(ladders(tokenizer.modality)[: tokenizer.num_codebooks]):
        sizes = tokenizer.codebook_sizes[: q + 1]
        grids = [Grids([s[..., : q + 1] for s in part], sizes) for part in (trained, judged)]
        for label, contexts in steps.items():
            bits = judged_bits(tokenizer, contexts, vectors[: q + 1], grids, args.ablate)
            print(f"| {q + 1} | {label} | {bits:.2f} |", flush=True)


def ladders(modality: str) -> tuple[dict[str, Any], ...]:
    first, second = contexts_of(0, modality), contexts_of(1, modality)
    own = tuple(c for c in second if c[0] == 1)
    here, around = (0, 0, 0), tuple(c for c in second if c[0] == 0)
    if modality == "image":
        one = {"left": first[:1], "and up": first[:2], "and diagonals": first[:4], "all 6": first}
    else:
        one = {"1 frame": first[:1], "3 frames": first[:3], "all": first}
    two = {
        "its own alone": own,
        "codebook 1 here": (here, *own),
        "codebook 1 here and around": (*around, *own),
    }
    return one, two


def judged_bits(
    tokenizer: Tokenizer, contexts: Any, vectors: list[Any], grids: list[Grids], steps: int
) -> float:
    sizes = tokenizer.codebook_sizes[: len(vectors)]
    idle = NetworkPlan(((0, -1, 0),), (4,), 0)
    networks = (*(idle for _ in sizes[1:]), NetworkPlan(contexts, (128, 128), 0))
    torch.manual_seed(0)
    twin = FloatTwin(PriorPlan(sizes, tokenizer.modality, 32, networks), vectors)
    only = Only(twin, len(sizes) - 1)
    with tqdm(total=steps, leave=False) as bar:
        fit_twin(only, grids[0], PriorConfig(steps=steps), lambda: None, lambda *_: bar.update())
    return mean_bits(only, grids[1])[0]


class Only(FloatTwin):
    """One network of a twin, as if it were all."""

    def __init__(self, twin: FloatTwin, q: int) -> None:
        torch.nn.Module.__init__(self)
        self.twin, self.q = twin, q
        self.networks = [twin.networks[q]]
        self.embeddings = twin.embeddings

    def bits(self, grids: Grids, index: torch.Tensor, q: int) -> torch.Tensor:
        return self.twin.bits(grids, index, self.q)


if __name__ == "__main__":
    sys.exit(exit_code(main))
