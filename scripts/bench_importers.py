"""Imported tokenizers beside the packages that they come from: codes, outputs, speed, memory.

Models of published sizes with random weights, whose codebooks are filled with latents of a real
photo or sound (bench_importers_images.py, bench_importers_sounds.py), on the same input in both.
VAR, MaskGIT and LlamaGen's lookup are written out there, for want of a package for torch. For each:

- how many codes differ between the two in the same settings, and how far apart decoding is;
- for EnCodec, how many codes differ from those that float64 finds for the original's own latents;
- how many codes of each change with the batch (1 or 2 inputs) and with the threads (1 or all), and
  how near the second nearest code is (share of the distance to the nearest);
- encoding and decoding, ours and theirs in turn: the median ratio of times (above 1: ours is
  faster); and what share of the original's time goes into looking codes up and into weight
  normalisation, where an importer can save most;
- the memory of a process of its own that loads the model, encodes and decodes: all that it holds at
  most, the package included, and how much more that is than once the model was loaded.

    python scripts/bench_importers.py                       # minutes; --small for a try in seconds
    python scripts/bench_importers.py --families mimi snac --threads 1 --json out.json
    python scripts/bench_importers.py --only memory --side 512 --seconds 10
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from bench_importers_images import IMAGES
from bench_importers_rivals import Rival
from bench_importers_shares import shares
from bench_importers_sounds import SOUNDS
from torch import Tensor

from vqtok.importers import FAMILIES, Checkpoint
from vqtok.quantizers import (
    FixedQuantizer,
    MultiRateQuantizer,
    ProjectedQuantizer,
    Quantizer,
    VectorQuantizer,
)
from vqtok.tokenizer import AudioTokenizer, Tokenizer

RIVALS: dict[str, Callable[[bool, Any], Rival]] = {**IMAGES, **SOUNDS}
_LONGEST = 20.0  # seconds of the rounds of one comparison, from the second on


def make(name: str, args: argparse.Namespace) -> Rival:
    torch.manual_seed(0)
    return RIVALS[name](args.small, args.side if name in IMAGES else args.seconds)


def imported(rival: Rival) -> Tokenizer:
    checkpoint = Checkpoint(rival.tensors(), rival.config)
    model = FAMILIES[rival.family].build(checkpoint, **rival.options)
    return Tokenizer(model, name=rival.family)


def ours_of(
    tokenizer: Tokenizer, rival: Rival
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Our encode and decode, of the same shapes as theirs."""
    used = rival.encode(rival.inputs).shape[-1]
    grid = len(rival.inputs.shape) == 4
    model = tokenizer.autoencoder
    if isinstance(tokenizer, AudioTokenizer) and tokenizer.together:
        # What is around the network is part of the model.
        return (
            lambda x: tokenizer.encode(x)[:, :, 0],
            lambda codes: tokenizer.decode(codes[:, :, None]),
        )

    def encode(x: Tensor) -> Tensor:
        if grid:
            x = x.contiguous(memory_format=torch.channels_last)
        codes = model.quantizer(model.encoder(x), num_codebooks=used).codes
        return codes.flatten(1, 2) if grid else codes

    def decode(codes: Tensor) -> Tensor:
        if grid:
            edge = math.isqrt(codes.shape[1])
            codes = codes.unflatten(1, (edge, edge))
        output: Tensor = model.decoder(model.quantizer.embed(codes))
        return output

    return encode, decode


def margins(quantizer: Quantizer, latents: Tensor) -> Tensor | None:
    """(second - first) / first nearest distance in the first codebook, float64 [places].

    None for a quantizer that goes by something else than one nearest code.
    """
    while not isinstance(quantizer, (VectorQuantizer, FixedQuantizer)):
        if isinstance(quantizer, ProjectedQuantizer):
            latents, quantizer = quantizer._project_in(latents), quantizer.layer
        elif isinstance(quantizer, MultiRateQuantizer):
            latents = latents.unflatten(-1, (quantizer.frame, -1)).mean(-2)
            quantizer = quantizer.layers[0]
        elif hasattr(quantizer, "layers"):
            quantizer = quantizer.layers[0]
        else:
            return None
    rows, table = latents.flatten(0, -2).double(), quantizer.table().double()
    if quantizer.config.get("cosine") or getattr(quantizer, "compare", "") == "angle":
        rows, table = F.normalize(rows, dim=-1), F.normalize(table, dim=-1)
    nearest = torch.cdist(rows, table).topk(2, largest=False).values
    return (nearest[:, 1] - nearest[:, 0]) / nearest[:, 0].clamp_min(1e-12)


def differing(codes: Tensor, others: Tensor) -> str:
    return f"{int((codes != others).sum()):,} of {codes.numel():,}"


def stability(
    encode: Callable[[Tensor], Tensor], x: Tensor, alone: Tensor, threads: int
) -> dict[str, str]:
    """How many codes of the first input change with what should not matter."""
    found = {"batch of 2": differing(encode(torch.cat([x, 0.5 * x.flip(-1)]))[:1], alone)}
    torch.set_num_threads(1 if threads > 1 else 2)
    found["other threads"] = differing(encode(x), alone)
    torch.set_num_threads(threads)
    return found


def paired(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> dict[str, Any]:
    """Times in turn; the ratio of each pair, of which the median.

    In one thread it is processor time, which other work on the machine disturbs less.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: tuple[list[float], list[float]] = ([], [])
    began = time.perf_counter()
    for index in range(rounds + 1):
        order = (0, 1) if index % 2 else (1, 0)
        for side in order:
            start = clock()
            (ours, theirs)[side]()
            if index:  # the first round warms up
                times[side].append(clock() - start)
        if index > 1 and time.perf_counter() - began > _LONGEST:
            break
    ratios = [b / a for a, b in zip(*times, strict=True)]
    return {
        "ours_s": statistics.median(times[0]),
        "theirs_s": statistics.median(times[1]),
        "ratio": statistics.median(ratios),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


def memory(name: str, args: argparse.Namespace) -> dict[str, dict[str, int]]:
    """MB of two processes, each of one side alone; see :func:`work_alone`."""
    rival = make(name, args)
    for key, value in rival.model.state_dict().items():
        if value.ndim == 2 and re.search("embed|codebook", key):
            value.normal_()  # distinct rows, as in a trained codebook
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        torch.save(rival.model.state_dict(), f"{folder}/theirs.pt")
        torch.save(rival.inputs, f"{folder}/inputs.pt")
        imported(rival).save_pretrained(Path(folder, "ours"))
        del rival
        command = [sys.executable, __file__, "--threads", str(args.threads)]
        command += ["--side", str(args.side), "--seconds", str(args.seconds)]
        command += ["--small"] if args.small else []
        # glibc then gives back at once what is freed: measured is the need, not what it keeps.
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
        for side in ("ours", "theirs"):
            run = [*command, "--alone", name, side, folder]
            answer = subprocess.run(
                run, check=True, stdout=subprocess.PIPE, text=True, env=environment
            ).stdout
            found[side] = json.loads(answer.splitlines()[-1])
    return found


def held(kind: str) -> int:
    """MB that this process holds (RSS), or has held at most (HWM)."""
    status = Path("/proc/self/status").read_text()
    match = re.search(rf"Vm{kind}:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1]) // 1024


def work_alone(name: str, side: str, folder: str, args: argparse.Namespace) -> None:
    """Load one side's model, encode and decode once, print MB in JSON.

    ``peak``: at most, while it works; ``more``: than when it began to.
    """
    decode: Callable[[Tensor], object] | None
    if side == "ours":
        tokenizer: Any = Tokenizer.from_pretrained(Path(folder, "ours"))
        x, encode, decode = torch.load(f"{folder}/inputs.pt"), tokenizer.encode, tokenizer.decode
        if name in IMAGES:
            x = ((x + 1) * 127.5).round().to(torch.uint8)
        elif x.ndim == 2:
            x = x[:, None]
        if name == "chameleon":
            decode = None
    else:
        rival = make(name, args)
        rival.model.load_state_dict(torch.load(f"{folder}/theirs.pt"))
        x, encode, decode = rival.inputs, rival.encode, rival.decode
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what loading has freed
    Path("/proc/self/clear_refs").write_text("5")  # the most so far is forgotten
    before = held("RSS")
    codes = encode(x)
    if decode is not None:
        decode(codes)
    print(json.dumps({"peak": held("HWM"), "more": held("HWM") - before}))


def compare(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Codes, outputs, stability, speed."""
    rival = make(name, args)
    rival.fill()
    tokenizer = imported(rival)
    model = tokenizer.autoencoder
    encode, decode = ours_of(tokenizer, rival)
    x = rival.inputs
    theirs, mine = rival.encode(x), encode(x)
    facts: dict[str, Any] = {
        "parameters": sum(p.numel() for p in rival.model.parameters()),
        "codes that differ": differing(mine, theirs),
        "codes in use": int(theirs.unique().numel()),
    }
    if rival.exact is not None:
        exact = rival.exact(x)
        facts["float64, from their latents"] = {
            "differs from theirs": differing(exact, theirs),
            "differs from ours": differing(exact, mine),
        }
    gap = margins(model.quantizer, model.encoder(x))
    if gap is not None:
        smallest, median = float(gap.min()), float(gap.median())
        facts["margin to the second code"] = {"smallest": smallest, "median": median}
    facts["theirs change with"] = stability(rival.encode, x, theirs, args.threads)
    facts["ours change with"] = stability(encode, x, mine, args.threads)
    facts["encode"] = paired(lambda: encode(x), lambda: rival.encode(x), args.rounds)
    facts["encode"]["shares"] = shares(lambda: rival.encode(x), rival.lookup, args.rounds)
    published = rival.decode
    if published is not None:
        ours, other = decode(theirs), published(theirs)
        length = min(ours.shape[-1], other.shape[-1])
        apart = (ours[..., :length] - other[..., :length]).abs().max()
        facts["largest difference of decoding"] = float(apart)
        facts["largest value of decoding"] = float(other.abs().max())
        facts["decode"] = paired(lambda: decode(theirs), lambda: published(theirs), args.rounds)
        facts["decode"]["shares"] = shares(lambda: published(theirs), rival.lookup, args.rounds)
    return facts


def table(results: list[dict[str, Any]]) -> str:
    """One line a model: codes that differ, how much faster ours is (and the share that lookup and
    weight normalisation have of the original's time), MB."""
    lines = ["| model | codes differ | encode | decode | peak MB | MB beyond the loaded model |"]
    lines.append("|---|---|---|---|---|---|")
    for facts in results:
        cells = [facts["model"], facts.get("codes that differ", "")]
        cells += [speed(facts[verb]) if verb in facts else "" for verb in VERBS]
        sides = facts.get("memory_mb")
        for kind in ("peak", "more"):
            both = f"{sides['ours'][kind]} / {sides['theirs'][kind]}" if sides else ""
            cells.append(both)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def speed(timed: dict[str, Any]) -> str:
    lookup, norm = (f"{100 * share:.0f}%" for share in timed["shares"].values())
    return f"{timed['ratio']:.2f}x ({lookup}, {norm})"


VERBS = ("encode", "decode")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", nargs="+", choices=RIVALS, default=list(RIVALS))
    parser.add_argument("--side", type=int, default=256, help="pixels of the photo, each way")
    parser.add_argument("--seconds", type=float, default=4.0, help="of sound")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--small", action="store_true", help="small models, to try the script")
    parser.add_argument("--only", choices=("speed", "memory"), help="leave out the other")
    parser.add_argument("--json", type=Path, help="write the results there, too")
    parser.add_argument("--alone", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with torch.no_grad():
        if args.alone:
            work_alone(*args.alone, args)
            return
        print(f"{platform.machine()}, {args.threads} threads, torch {torch.__version__}")
        results: list[dict[str, Any]] = []
        for name in args.families:
            began = time.perf_counter()
            facts: dict[str, Any] = {"model": name}
            if args.only != "memory":
                facts |= compare(name, args)
            if args.only != "speed":
                facts["memory_mb"] = memory(name, args)
            facts["seconds"] = round(time.perf_counter() - began)
            results.append(facts)
            print(json.dumps(facts), flush=True)
            if args.json:
                args.json.write_text(json.dumps(results, indent=1) + "\n")
        print(table(results))


if __name__ == "__main__":
    main()
