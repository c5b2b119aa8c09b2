"""How much of the model's speed `vqtok encode` delivers, and whether its memory stays flat.

Each round codes the same photos twice: with a bare loop of ``tokenizer.encode`` over photos that
were decoded beforehand, and with ``vqtok encode`` as a whole process (start-up, reading, decoding,
packing, checksums, fsync). The ratio of the two speeds is what counts; both are of one machine in
one run. Then ``vqtok encode`` runs over 100 and over 2,000 small files and the peak memory of the
two processes is compared.

    python scripts/bench_encode.py photos/ --photos 500
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import torch

from vqtok.cli import exit_code
from vqtok.media import list_sources
from vqtok.media.images import read_image, write_image
from vqtok.tokenizer import Tokenizer

# VmHWM, since ru_maxrss starts from what the parent process had resident.
PEAK_MEMORY = """
import re, runpy, sys
sys.argv[1:] = {arguments!r}
try:
    runpy.run_module("vqtok", run_name="__main__", alter_sys=True)
finally:
    status = open("/proc/self/status").read()
    print(re.search(r"VmHWM:\\s*(\\d+) kB", status)[1], file=sys.stderr)
"""


def encode_process(arguments: list[str]) -> tuple[float, int]:
    """Seconds and peak resident bytes of `vqtok encode ARGUMENTS` as a process of its own."""
    code = PEAK_MEMORY.format(arguments=["encode", *arguments])
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(done.stderr)
    return seconds, int(done.stderr.strip().splitlines()[-1]) * 1024


def copies(data: str, count: int, folder: Path) -> list[Path]:
    """``count`` files, the photos of ``data`` repeated as often as needed, as links."""
    folder.mkdir()
    links = []
    for index, source in enumerate(islice(cycle(list_sources(data)), count)):
        link = folder / f"{index:05d}{Path(source.path).suffix}"
        link.symlink_to(Path(source.path).resolve())
        links.append(link)
    return links


def bench_speed(tokenizer_name: str, data: str, count: int, rounds: int, root: Path) -> dict:
    """The paired rounds over full photos."""
    paths = copies(data, count, root / "photos")
    images = [torch.from_numpy(read_image(path).pixels).permute(2, 0, 1)[None] for path in paths]
    pixels = sum(image.shape[2] * image.shape[3] for image in images)
    tokenizer = Tokenizer.from_pretrained(tokenizer_name)
    tokenizer.encode(images[0])
    pairs = []
    for number in range(rounds):
        started = time.perf_counter()
        for image in images:
            tokenizer.encode(image)
        bare = time.perf_counter() - started
        out = root / f"tokens-{number}"
        whole, _ = encode_process([str(root / "photos"), str(out), "--tokenizer", tokenizer_name])
        pairs.append({"bare_s": bare, "vqtok_encode_s": whole, "ratio": bare / whole})
    return {
        "photos": count,
        "mpx": pixels / 1e6,
        "rounds": pairs,
        "bare_mpx_per_s": statistics.median(pixels / pair["bare_s"] for pair in pairs) / 1e6,
        "ratio": statistics.median(pair["ratio"] for pair in pairs),
    }


def bench_memory(tokenizer_name: str, data: str, root: Path) -> dict:
    """Peak memory over 100 and 2,000 files of 256 x 256 pixels."""
    peaks = {}
    source = read_image(list_sources(data)[0]).pixels[:256, :256]
    for count in (100, 2000):
        folder = root / f"small-{count}"
        folder.mkdir()
        write_image(folder / "00000.png", source)
        for index in range(1, count):
            shutil.copy(folder / "00000.png", folder / f"{index:05d}.png")
        out = root / f"small-tokens-{count}"
        _, peaks[count] = encode_process(
            [str(folder), str(out), "--tokenizer", tokenizer_name, "--shard-size", "500"]
        )
    return {"peak_mb": {count: peak / 1e6 for count, peak in peaks.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="photos: folder, glob or list")
    parser.add_argument("--tokenizer", default="photo")
    parser.add_argument("--photos", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        result = bench_speed(args.tokenizer, args.data, args.photos, args.rounds, root)
        result |= bench_memory(args.tokenizer, args.data, root)
    result |= {"threads": torch.get_num_threads(), "machine": platform.machine()}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    sys.exit(exit_code(main))
