"""Imported tokenizers beside the packages that they come from: codes, outputs, speed, memory.

Models of published sizes with random weights, whose codebooks are filled with latents of a real
photo or sound (bench_importers_rivals.py), in both packages on the same input. For each:

- how many codes differ between the two in the same settings, and how far apart decoding is;
- how many codes of each change with the batch (1 or 4 inputs) and with the threads (1 or all), and
  how near the second nearest code is (share of the distance to the nearest) where any differ;
- encoding and decoding, ours and theirs in turn: the median ratio of times (above 1: ours is
  faster);
- the peak memory of a process of its own that loads the model, encodes and decodes.

    python scripts/bench_importers.py                       # minutes; --small for a try in seconds
    python scripts/bench_importers.py --families mimi snac --threads 1 --json out.json
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from bench_importers_rivals import IMAGES, RIVALS, Rival
from torch import Tensor

from vqtok.autoencoders import Autoencoder
from vqtok.importers import FAMILIES, Checkpoint
from vqtok.quantizers import (
    FixedQuantizer,
    MultiRateQuantizer,
    ProjectedQuantizer,
    Quantizer,
    VectorQuantizer,
)
from vqtok.tokenizer import AudioTokenizer, Tokenizer


def make(name: str, args: argparse.Namespace) -> Rival:
    torch.manual_seed(0)
    return RIVALS[name](args.small, args.side if name in IMAGES else args.seconds)


def imported(rival: Rival) -> Autoencoder:
    checkpoint = Checkpoint(dict(rival.model.state_dict()), rival.config)
    model = FAMILIES[rival.family].build(checkpoint)
    return Tokenizer(model, name=rival.family).autoencoder  # its weights laid out as tokenizers do


def ours_of(
    model: Autoencoder, rival: Rival
) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """Our encode and decode, of the same shapes as theirs."""
    used = rival.encode(rival.inputs).shape[-1]
    grid = len(rival.inputs.shape) == 4
    if (
        getattr(model.encoder, "ends", "") == "segments"
    ):  # what is around the network is part of the model
        tokenizer = AudioTokenizer(model, name=rival.family)
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


def margins(quantizer: Quantizer, latents: Tensor) -> Tensor:
    """(second - first) / first nearest distance in the first codebook, float64 [places]."""
    while not isinstance(quantizer, (VectorQuantizer, FixedQuantizer)):
        if isinstance(quantizer, ProjectedQuantizer):
            latents, quantizer = quantizer._project_in(latents), quantizer.layer
        elif isinstance(quantizer, MultiRateQuantizer):
            latents = latents.unflatten(-1, (quantizer.frame, -1)).mean(-2)
            quantizer = quantizer.layers[0]
        else:
            quantizer = quantizer.layers[0]
    rows, table = latents.flatten(0, -2).double(), quantizer.table().double()
    if getattr(quantizer, "compare", "") == "angle":
        rows, table = F.normalize(rows, dim=-1), F.normalize(table, dim=-1)
    nearest = torch.cdist(rows, table).topk(2, largest=False).values
    return (nearest[:, 1] - nearest[:, 0]) / nearest[:, 0].clamp_min(1e-12)


def differing(codes: Tensor, others: Tensor) -> str:
    return f"{int((codes != others).sum()):,} of {codes.numel():,}"


def stability(encode: Callable[[Tensor], Tensor], x: Tensor, threads: int) -> dict[str, str]:
    """How many codes of the first input change with what should not matter."""
    alone = encode(x)
    batch = torch.cat([x, x.flip(-1), 0.5 * x, -x])
    found = {"batch of 4": differing(encode(batch)[:1], alone)}
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
    for index in range(rounds + 1):
        order = (0, 1) if index % 2 else (1, 0)
        for side in order:
            start = clock()
            (ours, theirs)[side]()
            if index:  # the first round warms up
                times[side].append(clock() - start)
    ratios = [b / a for a, b in zip(*times, strict=True)]
    return {
        "ours_s": statistics.median(times[0]),
        "theirs_s": statistics.median(times[1]),
        "ratio": statistics.median(ratios),
    }


def peak(name: str, side: str, args: argparse.Namespace) -> int:
    """MB of a process that does one side alone, less what building both of it takes."""
    command = [sys.executable, __file__, "--peak", name, side, "--threads", str(args.threads)]
    command += ["--side", str(args.side), "--seconds", str(args.seconds)]
    command += ["--small"] if args.small else []
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def work_alone(name: str, side: str, args: argparse.Namespace) -> None:
    """Print the rise of the peak memory, in MB, while one side encodes and decodes."""
    rival = make(name, args)
    encode, decode = rival.encode, rival.decode
    if side == "ours":
        encode, decode = ours_of(imported(rival), rival)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    inputs = torch.cat([rival.inputs] * 4)  # more than what building took
    decode(encode(inputs))
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)


def compare(name: str, args: argparse.Namespace) -> dict[str, Any]:
    rival = make(name, args)
    model = imported(rival)
    encode, decode = ours_of(model, rival)
    x = rival.inputs
    theirs, mine = rival.encode(x), encode(x)
    gap = margins(model.quantizer, model.encoder(x))
    sound_or_image = decode(theirs)
    published = rival.decode(theirs)
    length = min(sound_or_image.shape[-1], published.shape[-1])
    facts: dict[str, Any] = {
        "family": name,
        "parameters": sum(p.numel() for p in rival.model.parameters()),
        "codes that differ": differing(mine, theirs),
        "largest difference of decoding": float(
            (sound_or_image[..., :length] - published[..., :length]).abs().max()
        ),
        "margin to the second code": {
            "smallest": float(gap.min()),
            "median": float(gap.median()),
        },
        "theirs change with": stability(rival.encode, x, args.threads),
        "ours change with": stability(encode, x, args.threads),
        "encode": paired(lambda: encode(x), lambda: rival.encode(x), args.rounds),
        "decode": paired(lambda: decode(theirs), lambda: rival.decode(theirs), args.rounds),
    }
    if not args.no_memory:
        facts["memory_mb"] = {side: peak(name, side, args) for side in ("ours", "theirs")}
    return facts


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
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    parser.add_argument("--json", type=Path, help="write the results there, too")
    parser.add_argument("--peak", nargs=2, metavar=("FAMILY", "SIDE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with torch.no_grad():
        if args.peak:
            work_alone(*args.peak, args)
            return
        print(f"{platform.machine()}, {args.threads} threads, torch {torch.__version__}")
        results = []
        for name in args.families:
            results.append(compare(name, args))
            print(json.dumps(results[-1], indent=1), flush=True)
        if args.json:
            args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
