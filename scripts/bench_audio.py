"""How fast sound goes through a tokenizer with one thread, and how much memory long files take.

Speed: seconds of sound coded per second, in rounds that take turns with vqtok's own waveform stack
and the codecs of `transformers` (`--rivals`, needs `pip install 'vqtok[bench]'`; random weights,
for speed alone), so that all are of one machine in one run. Memory and time of long files:
`vqtok encode` and `vqtok decode` as processes of their own, with one thread, on noise of the given
length.

    python scripts/bench_audio.py --rivals
    python scripts/bench_audio.py --hours 1 --rate 44100 --channels 2
    python scripts/bench_audio.py --preset audio          # untrained weights of that preset
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from vqtok.autoencoders import Autoencoder, build_autoencoder, preset_config
from vqtok.autoencoders.likelihoods import SoundDistance
from vqtok.cli import exit_code
from vqtok.media import AudioReader, AudioWriter
from vqtok.nn import WaveformDecoder, WaveformEncoder
from vqtok.quantizers import ResidualQuantizer, VectorQuantizer
from vqtok.tokenizer import AudioTokenizer, Tokenizer

Coder = tuple[Callable[[], object], Callable[[], object]]  # encode, decode


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", default="audio", help="name or folder")
    parser.add_argument("--preset", help="untrained weights of a preset instead of a tokenizer")
    parser.add_argument("--seconds", type=float, default=20, help="of sound in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--rivals", action="store_true", help="waveform stack, EncodecModel and DacModel too"
    )
    parser.add_argument("--hours", type=float, help="also code one file of this length")
    parser.add_argument("--rate", type=int, default=24_000, help="of that file, in Hz")
    parser.add_argument("--channels", type=int, default=1, help="of that file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        name = args.tokenizer
        if args.preset is not None:
            model = build_autoencoder(preset_config(args.preset))
            AudioTokenizer(model, name=args.preset).save_pretrained(root / "tokenizer")
            name = str(root / "tokenizer")
        facts: dict[str, object] = {"machine": machine(), "threads": 1}
        facts["times_real_time"] = bench_speed(name, args.seconds, args.rounds, args.rivals)
        if args.hours is not None:
            facts["long_file"] = bench_long(name, args.hours, args.rate, args.channels, root)
        print(json.dumps(facts, indent=2))


def bench_speed(name: str, seconds: float, rounds: int, rivals: bool) -> dict[str, object]:
    """Medians over the rounds of seconds of sound per second, to codes and back."""
    coders = {"vqtok": ours(Tokenizer.from_pretrained(name), seconds)}
    if rivals:
        coders |= {"vqtok, waveform stack": ours(waveform(), seconds)}
        coders |= {"transformers EncodecModel, 24 kHz": encodec(seconds)}
        coders |= {"transformers DacModel, 24 kHz": dac(seconds)}
    speeds: dict[str, list[tuple[float, ...]]] = {coder: [] for coder in coders}
    with torch.no_grad():
        for number in range(rounds + 1):
            for coder, directions in coders.items():
                pair = tuple(seconds / timed(direction) for direction in directions)
                if number:  # the first round warms up
                    speeds[coder].append(pair)
    return {
        coder: {
            "encode": round(statistics.median(pair[0] for pair in pairs), 1),
            "decode": round(statistics.median(pair[1] for pair in pairs), 1),
        }
        for coder, pairs in speeds.items()
    }


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def noise(seconds: float, rate: int) -> torch.Tensor:
    return torch.randn(1, 1, int(seconds * rate), generator=torch.Generator().manual_seed(0)) * 0.1


def waveform() -> Tokenizer:
    """The waveform stack with the widths and strides of EnCodec's, 75 frames a second."""
    shape = {"channels": 32, "strides": [2, 4, 5, 8]}
    model = Autoencoder(
        WaveformEncoder(**shape),
        ResidualQuantizer([VectorQuantizer(1024, 128) for _ in range(8)]),
        WaveformDecoder(**shape),
        likelihood=SoundDistance(24_000),
    )
    return Tokenizer(model, name="waveform")


def ours(tokenizer: Tokenizer, seconds: float) -> Coder:
    assert isinstance(tokenizer, AudioTokenizer)
    sound = noise(seconds, tokenizer.sample_rate)
    codes = tokenizer.encode(sound)
    return lambda: tokenizer.encode(sound), lambda: tokenizer.decode(codes)


def encodec(seconds: float) -> Coder:
    from transformers import EncodecConfig, EncodecModel

    model = EncodecModel(EncodecConfig()).eval()
    sound = noise(seconds, model.config.sampling_rate)
    with torch.no_grad():
        codes = model.encode(sound, bandwidth=6.0).audio_codes
    return (
        lambda: model.encode(sound, bandwidth=6.0),
        lambda: model.decode(codes, [None] * len(codes)),
    )


def dac(seconds: float) -> Coder:
    from transformers import DacConfig, DacModel

    config = DacConfig(sampling_rate=24_000, downsampling_ratios=[2, 4, 5, 8], n_codebooks=32)
    model = DacModel(config).eval()
    sound = noise(seconds, config.sampling_rate)
    with torch.no_grad():
        codes = model.encode(sound).audio_codes
    return lambda: model.encode(sound), lambda: model.decode(audio_codes=codes)


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


def bench_long(name: str, hours: float, rate: int, channels: int, root: Path) -> dict[str, object]:
    """One long file through both commands: its time, peak memory, and whether it came back."""
    samples = int(hours * 3600 * rate)
    write_noise(root / "long.flac", samples, rate, channels)
    encoded = command("encode", root / "long.flac", root / "tokens", "--tokenizer", name)
    decoded = command("decode", root / "tokens", root / "out", "--tokenizer", name)
    with AudioReader(root / "out" / "long.wav") as reader:
        shape = (reader.channels, sum(block.shape[1] for block in reader.blocks()))
        assert (shape, reader.sample_rate) == ((channels, samples), rate), shape
    size = sum(path.stat().st_size for path in (root / "tokens").iterdir())
    return {
        "hours": hours,
        "rate": rate,
        "channels": channels,
        "kbps": round(size * 8 / hours / 3600 / 1000, 3),
        "encode": {"times_real_time": round(hours * 3600 / encoded[0], 1), "peak_mb": encoded[1]},
        "decode": {"times_real_time": round(hours * 3600 / decoded[0], 1), "peak_mb": decoded[1]},
    }


def write_noise(path: Path, samples: int, rate: int, channels: int) -> None:
    rng = np.random.default_rng(0)
    with AudioWriter(path, rate, channels, "flac") as writer:
        for start in range(0, samples, rate):
            shape = (channels, min(rate, samples - start))
            writer.write(rng.standard_normal(shape, dtype=np.float32) * np.float32(0.1))


def command(*arguments: object) -> tuple[float, int]:
    """Seconds and peak resident megabytes of one vqtok command with one thread."""
    code = PEAK_MEMORY.format(arguments=[*map(str, arguments), "--workers", "1"])
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=one_thread
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(done.stderr)
    return seconds, int(done.stderr.strip().splitlines()[-1]) * 1024 // 1_000_000


def machine() -> str:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    found = re.search(r"model name\s*:\s*(.*)", text)
    return found[1] if found else "unknown"


if __name__ == "__main__":
    sys.exit(exit_code(main))
