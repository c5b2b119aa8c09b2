"""Score an audio tokenizer at several rates, beside Opus, MP3 and codec2 on the same sounds.

For each rate, means over the sounds of:

- kbps fixed: of the codes, each as wide as its codebook needs (``--pack bits``);
- kbps: of the codes in token files packed with ``--pack entropy``, all their bytes; for the others
  of the packets, without any container;
- mel and spectrum: the distances of ``vqtok.nn.sound_losses.SoundLoss``, the second of complex
  spectra, so phases count; STFT: of magnitudes alone, as papers report it
  (``vqtok.bench.metrics.sound.stft_distance``); lower is better;
- PESQ-wb and STOI, for speech (``--speech``), at 16 kHz; SI-SDR in dB.

All is measured on one channel at the tokenizer's sample rate. Delays of the others are found by
cross-correlation and taken out. Needs the extra ``bench`` (PyAV, pesq, pystoi); codec2 takes part
where its Debian package is installed.

    python scripts/evaluate_audio.py audio DEV_SPEECH --speech
    python scripts/evaluate_audio.py runs/audio DEV_MUSIC --codebooks 8 --no-baselines --json
    python scripts/evaluate_audio.py audio DEV_MUSIC --no-baselines --rate-weights 0 0.3 1
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from audio_baselines import Wave, baseline, baselines

from vqtok.bench.metrics.sound import stft_distance
from vqtok.cli import exit_code
from vqtok.media import list_sources
from vqtok.media.audio import read_audio
from vqtok.media.resampling import resample
from vqtok.nn.sound_losses import SoundLoss
from vqtok.tokenizer import AudioTokenizer, Tokenizer
from vqtok.tokens import Header, Sample, write_shard
from vqtok.tokens.header import MAX_RATE_WEIGHT


class Scores:
    """The figures of one codec, sound by sound."""

    def __init__(self, rate: int, speech: bool) -> None:
        self.rate = rate
        self.speech = speech
        self.loss = SoundLoss(rate)
        self.values: dict[str, list[float]] = defaultdict(list)

    def add(self, output: Wave, target: Wave, kbps: float | None = None) -> None:
        heard, said = torch.from_numpy(output)[None], torch.from_numpy(target)[None]
        with torch.no_grad():
            terms = self.loss.terms(heard, said)
        if kbps is not None:
            self.values["kbps"].append(kbps)
        self.values["mel"].append(float(terms["mel"]))
        self.values["stft"].append(float(stft_distance(heard, said)))
        self.values["spectrum"].append(float(terms["spectrum"]))
        self.values["si_sdr_db"].append(si_sdr(output, target))
        if self.speech:
            from pesq import NoUtterancesError, pesq
            from pystoi import stoi

            narrow, clean = (resample(w[None], self.rate, 16_000)[0] for w in (output, target))
            self.values["stoi"].append(float(stoi(clean, narrow, 16_000)))
            try:
                self.values["pesq_wb"].append(float(pesq(16_000, clean, narrow, "wb")))
            except NoUtterancesError:
                self.values["pesq_wb"].append(1.0)

    def means(self) -> dict[str, float]:
        return {name: float(np.mean(values)) for name, values in self.values.items()}


def si_sdr(output: Wave, target: Wave) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al., 2019)."""
    heard, said = output.astype(np.float64), target.astype(np.float64)
    said = said * (heard @ said) / max(said @ said, 1e-12)
    return 10 * math.log10(max(said @ said, 1e-12) / max(((heard - said) ** 2).sum(), 1e-12))


def sounds(data: str, rate: int, limit: int | None) -> Iterator[Wave]:
    for source in list_sources(data, "audio")[:limit]:
        yield np.ascontiguousarray(read_audio(source, rate).samples.mean(axis=0))


@torch.no_grad()
def evaluate(
    tokenizer: AudioTokenizer,
    data: str,
    rates: list[int],
    *,
    speech: bool,
    limit: int | None = None,
    rate_weights: Sequence[float] = (0.0,),
) -> list[dict[str, Any]]:
    """The tokenizer's figures with each number of codebooks; 0 stands for no quantization.

    With each rate weight, too: see :meth:`AudioTokenizer.encode`.
    """
    rows = []
    for used, weight in product(rates, rate_weights):
        if not used and weight != rate_weights[0]:
            continue  # no codes to choose
        scores, samples = Scores(tokenizer.sample_rate, speech), []
        seconds = {"audio": 0.0, "encode": 0.0, "decode": 0.0}
        for wave in sounds(data, tokenizer.sample_rate, limit):
            seconds["audio"] += len(wave) / tokenizer.sample_rate
            if not used:
                scores.add(unquantized(tokenizer, wave), wave)
                continue
            started = time.perf_counter()
            codes = tokenizer.encode(
                torch.from_numpy(wave)[None, None], num_codebooks=used, rate_weight=weight
            )
            seconds["encode"] += time.perf_counter() - started
            started = time.perf_counter()
            scores.add(tokenizer.decode(codes, len(wave))[0, 0].numpy(), wave)
            seconds["decode"] += time.perf_counter() - started
            samples.append(Sample(codes[0].numpy()))
        row: dict[str, Any] = {"codec": "unquantized", **scores.means()}
        row |= {"sounds": len(scores.values["mel"]), "fingerprint": tokenizer.fingerprint}
        if used:
            kbits = payload_bits(tokenizer, samples, used) / seconds["audio"] / 1000
            row |= {
                "codec": f"{tokenizer.name}, {used} of {tokenizer.num_codebooks}"
                + (f", rate weight {weight:g}" if weight else ""),
                "kbps_fixed": fixed_bits(tokenizer, used) * tokenizer.frame_rate / 1000,
                "kbps": kbits,
                "encode_times_real_time": seconds["audio"] / seconds["encode"],
                "decode_times_real_time": seconds["audio"] / seconds["decode"],
            }
        rows.append(row)
    return rows


def unquantized(tokenizer: AudioTokenizer, wave: Wave) -> Wave:
    """What comes out if the latents themselves pass."""
    model = tokenizer.autoencoder
    padded = torch.from_numpy(np.pad(wave, (0, -len(wave) % tokenizer.hop)))[None]
    output: Wave = model.decoder(model.encoder(padded))[0, : len(wave)].numpy()
    return output


def fixed_bits(tokenizer: AudioTokenizer, used: int) -> int:
    """Bits of a frame's codes where each takes as many as its codebook needs."""
    return sum((size - 1).bit_length() for size in tokenizer.codebook_sizes[:used])


def payload_bits(tokenizer: AudioTokenizer, samples: list[Sample], used: int) -> int:
    """Bits of the codes in a token file packed with ``entropy``, which is written for it."""
    prior = tokenizer.prior
    header = Header(
        tokenizer=tokenizer.fingerprint,
        tokenizer_name=tokenizer.name,
        codebook_sizes=tokenizer.codebook_sizes[:used],
        modality="audio",
        packing="entropy",
        prior=prior.digest if prior else "",
    )
    with tempfile.TemporaryDirectory() as folder:
        if prior is not None:
            prior.save(Path(folder) / "prior.safetensors")
        return 8 * write_shard(Path(folder) / "shard.safetensors", samples, header).token_bytes


def evaluate_baselines(
    data: str, rate: int, *, speech: bool, limit: int | None = None
) -> list[dict[str, Any]]:
    """The figures of Opus, MP3 and codec2."""
    scores = {name: Scores(rate, speech) for name in baselines(speech)}
    for wave in sounds(data, rate, limit):
        for name, score in scores.items():
            output, kbps = baseline(wave, rate, name, speech=speech)
            score.add(output, wave, kbps)
    return [{"codec": name, **score.means()} for name, score in scores.items()]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown; a figure that a row lacks is left empty."""
    columns: dict[str, tuple[str, Callable[[float], str]]] = {
        "kbps_fixed": ("kbps fixed", "{:.2f}".format),
        "kbps": ("kbps", "{:.2f}".format),
        "mel": ("mel", "{:.3f}".format),
        "stft": ("STFT", "{:.2f}".format),
        "spectrum": ("spectrum", "{:.4f}".format),
        "pesq_wb": ("PESQ-wb", "{:.2f}".format),
        "stoi": ("STOI", "{:.3f}".format),
        "si_sdr_db": ("SI-SDR dB", "{:.1f}".format),
    }
    shown = {key: column for key, column in columns.items() if any(key in row for row in rows)}
    lines = [
        "| codec | " + " | ".join(title for title, _ in shown.values()) + " |",
        "|---" * (len(shown) + 1) + "|",
    ]
    for row in rows:
        cells = [form(row[key]) if key in row else "" for key, (_, form) in shown.items()]
        lines.append(f"| {row['codec']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tokenizer", help="a bundled name or a tokenizer folder")
    parser.add_argument("data", help="sounds: folder, glob, list or tar")
    parser.add_argument("--speech", action="store_true", help="PESQ-wb and STOI too")
    parser.add_argument(
        "--codebooks",
        type=int,
        nargs="*",
        help="numbers of codebooks, 0 for no quantization (default: 2, 4 and all)",
    )
    parser.add_argument(
        "--rate-weights", type=float, nargs="+", default=[0.0], metavar="X", help="of vqtok encode"
    )
    parser.add_argument("--no-baselines", action="store_true", help="leave out the other codecs")
    parser.add_argument("--limit", type=int, help="only the first sounds")
    parser.add_argument("--threads", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    args = parser.parse_args()
    if not all(0 <= weight <= MAX_RATE_WEIGHT for weight in args.rate_weights):
        parser.error(f"argument --rate-weights: must be from 0 to {MAX_RATE_WEIGHT:g}")
    torch.set_num_threads(args.threads)
    tokenizer = Tokenizer.from_pretrained(args.tokenizer)
    assert isinstance(tokenizer, AudioTokenizer)
    rates = [2, 4, tokenizer.num_codebooks] if args.codebooks is None else args.codebooks
    rows = evaluate(
        tokenizer,
        args.data,
        rates,
        speech=args.speech,
        limit=args.limit,
        rate_weights=args.rate_weights,
    )
    if not args.no_baselines:
        rate = tokenizer.sample_rate
        rows += evaluate_baselines(args.data, rate, speech=args.speech, limit=args.limit)
    if args.json:
        print("\n".join(json.dumps(row) for row in rows))
        return
    print(table(rows))
    for row in rows:
        if "encode_times_real_time" in row:
            print(
                f"\n{row['codec']}: {row['encode_times_real_time']:.0f} x real time encode, "
                f"{row['decode_times_real_time']:.0f} x decode, {args.threads} threads"
            )


if __name__ == "__main__":
    sys.exit(exit_code(main))
