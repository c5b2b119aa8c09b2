"""Score an audio tokenizer at several rates, beside Opus and MP3 on the same sounds.

For each rate, means over the sounds of:

- kbps: of the codes at fixed width; for Opus and MP3 of the packets, without any container;
- kbps order-0: of the codes at the entropy of each codebook's own statistics over all sounds;
- mel and spectrum: the distances of ``vqtok.nn.sound_losses.SoundLoss`` (lower is better);
- PESQ-wb and STOI, for speech (``--speech``), at 16 kHz; SI-SDR in dB.

All is measured on one channel at the tokenizer's sample rate. Delays of Opus and MP3 are found by
cross-correlation and taken out. Needs the extra ``bench`` (PyAV, pesq, pystoi).

    python scripts/evaluate_audio.py audio DEV_SPEECH --speech
    python scripts/evaluate_audio.py runs/audio DEV_MUSIC --codebooks 8 --no-baselines --json
"""

from __future__ import annotations

import argparse
import io
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vqtok.media.audio import read_audio
from vqtok.media.resampling import resample
from vqtok.media.sources import list_sources
from vqtok.nn.sound_losses import SoundLoss
from vqtok.tokenizer import Tokenizer

Wave = NDArray[np.float32]

# What each baseline is asked for in bits per second; what it takes is measured.
BASELINES = {
    "Opus 6": ("libopus", "ogg", 6_000),
    "Opus 8": ("libopus", "ogg", 8_000),
    "Opus 12": ("libopus", "ogg", 12_000),
    "MP3 8": ("libmp3lame", "mp3", 8_000),
    "MP3 16": ("libmp3lame", "mp3", 16_000),
}


class Scores:
    """The figures of one codec, sound by sound."""

    def __init__(self, rate: int, speech: bool) -> None:
        self.rate = rate
        self.speech = speech
        self.loss = SoundLoss(rate)
        self.values: dict[str, list[float]] = defaultdict(list)

    def add(self, output: Wave, target: Wave, kbps: float) -> None:
        with torch.no_grad():
            terms = self.loss.terms(torch.from_numpy(output)[None], torch.from_numpy(target)[None])
        self.values["kbps"].append(kbps)
        self.values["mel"].append(float(terms["mel"]))
        self.values["spectrum"].append(float(terms["spectrum"]))
        self.values["si_sdr_db"].append(si_sdr(output, target))
        if self.speech:
            from pesq import NoUtterancesError, pesq
            from pystoi import stoi

            heard, said = (resample(w[None], self.rate, 16_000)[0] for w in (output, target))
            self.values["stoi"].append(float(stoi(said, heard, 16_000)))
            try:
                self.values["pesq_wb"].append(float(pesq(16_000, said, heard, "wb")))
            except NoUtterancesError:
                self.values["pesq_wb"].append(1.0)

    def means(self) -> dict[str, float]:
        return {name: float(np.mean(values)) for name, values in self.values.items()}


def si_sdr(output: Wave, target: Wave) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al., 2019)."""
    heard, said = output.astype(np.float64), target.astype(np.float64)
    said = said * (heard @ said) / max(said @ said, 1e-12)
    return 10 * math.log10(max(said @ said, 1e-12) / max(((heard - said) ** 2).sum(), 1e-12))


def entropy(counts: NDArray[np.int64]) -> float:
    """Bits per code of a histogram."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())


def baseline(wave: Wave, rate: int, name: str, *, speech: bool) -> tuple[Wave, float]:
    """Through a codec of FFmpeg's and back, aligned; and the kbps of its packets."""
    import av

    codec, container, bits = BASELINES[name]
    file = io.BytesIO()
    size = 0
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = bits
        if codec == "libopus":
            stream.options = {"application": "voip" if speech else "audio", "vbr": "on"}
        samples = (wave * 32767).round().clip(-32768, 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16p", layout="mono")
        frame.sample_rate = rate
        frames = av.AudioResampler(format=stream.format, layout="mono", rate=rate).resample(frame)
        for piece in [*frames, None]:
            for packet in stream.encode(piece):
                size += packet.size
                out.mux(packet)
    file.seek(0)
    with av.open(file) as coded:
        back = av.AudioResampler(format="flt", layout="mono", rate=rate)
        pieces = [part for frame in coded.decode(audio=0) for part in back.resample(frame)]
        pieces += back.resample(None)
        decoded = np.concatenate([piece.to_ndarray().reshape(-1) for piece in pieces])
    return aligned(decoded, wave), size * 8 / (len(wave) / rate) / 1000


def aligned(decoded: Wave, wave: Wave, longest: int = 4000) -> Wave:
    """``decoded`` moved by up to ``longest`` samples to where it fits ``wave`` best."""
    size = 1 << (len(decoded) + len(wave)).bit_length()
    product = np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(wave, size))
    correlation = np.fft.irfft(product, size)
    lags = np.r_[0 : longest + 1, -longest:0]
    lag = int(lags[np.argmax(correlation[lags])])
    moved = np.pad(decoded, (max(0, -lag), 0))[max(0, lag) :][: len(wave)]
    return np.pad(moved, (0, len(wave) - len(moved))).astype(np.float32)


def sounds(data: str, rate: int, limit: int | None) -> Iterator[Wave]:
    for source in list_sources(data, "audio")[:limit]:
        yield np.ascontiguousarray(read_audio(source, rate).samples.mean(axis=0))


@torch.no_grad()
def evaluate(
    tokenizer: Tokenizer, data: str, rates: list[int], *, speech: bool, limit: int | None = None
) -> list[dict[str, Any]]:
    """The tokenizer's figures with each number of codebooks; 0 stands for no quantization."""
    model = tokenizer.autoencoder
    hop, rate = model.encoder.hop, model.encoder.sample_rate
    scores = {used: Scores(rate, speech) for used in rates}
    counts = [np.zeros(size, np.int64) for size in tokenizer.codebook_sizes]
    width = [math.ceil(math.log2(size)) * rate / hop / 1000 for size in tokenizer.codebook_sizes]
    seconds = {"audio": 0.0, "encode": 0.0, "decode": 0.0}
    for wave in sounds(data, rate, limit):
        padded = torch.from_numpy(np.pad(wave, (0, -len(wave) % hop)))[None]
        started = time.perf_counter()
        latents = model.encoder(padded)
        codes = model.quantizer(latents).codes
        seconds["encode"] += time.perf_counter() - started
        seconds["audio"] += len(wave) / rate
        for index, histogram in enumerate(counts):
            histogram += np.bincount(codes[0, :, index], minlength=len(histogram))
        for used in rates:
            started = time.perf_counter()
            values = model.quantizer.embed(codes[..., :used]) if used else latents
            output = model.decoder(values)[0, : len(wave)].numpy()
            seconds["decode"] += (time.perf_counter() - started) / len(rates)
            scores[used].add(output, wave, sum(width[:used]))
    bits = [entropy(histogram) * rate / hop / 1000 for histogram in counts]
    return [
        {
            "codec": f"{tokenizer.name}, {used} of {len(bits)}" if used else "unquantized",
            **scores[used].means(),
            "kbps_order0": sum(bits[:used]),
            "sounds": len(scores[used].values["mel"]),
            "fingerprint": tokenizer.fingerprint,
            "encode_times_real_time": seconds["audio"] / seconds["encode"],
            "decode_times_real_time": seconds["audio"] / seconds["decode"],
        }
        for used in rates
    ]


def evaluate_baselines(
    data: str, rate: int, *, speech: bool, limit: int | None = None
) -> list[dict[str, Any]]:
    """The figures of Opus and MP3."""
    scores = {name: Scores(rate, speech) for name in BASELINES}
    for wave in sounds(data, rate, limit):
        for name, score in scores.items():
            output, kbps = baseline(wave, rate, name, speech=speech)
            score.add(output, wave, kbps)
    return [{"codec": name, **score.means()} for name, score in scores.items()]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown; a figure that a row lacks is left empty."""
    columns: dict[str, tuple[str, Callable[[float], str]]] = {
        "kbps": ("kbps", "{:.2f}".format),
        "kbps_order0": ("kbps order-0", "{:.2f}".format),
        "mel": ("mel", "{:.3f}".format),
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
        "--codebooks", type=int, nargs="+", help="numbers of codebooks (default: 2, 4 and all)"
    )
    parser.add_argument("--no-baselines", action="store_true", help="leave out Opus and MP3")
    parser.add_argument("--limit", type=int, help="only the first sounds")
    parser.add_argument("--threads", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = Tokenizer.from_pretrained(args.tokenizer)
    rates = args.codebooks or [2, 4, tokenizer.num_codebooks]
    rows = evaluate(tokenizer, args.data, rates, speech=args.speech, limit=args.limit)
    if not args.no_baselines:
        rate = tokenizer.autoencoder.encoder.sample_rate
        rows += evaluate_baselines(args.data, rate, speech=args.speech, limit=args.limit)
    if args.json:
        print("\n".join(json.dumps(row) for row in rows))
        return
    print(table(rows))
    first = rows[0]
    print(
        f"\n{first['encode_times_real_time']:.0f} x real time encode, "
        f"{first['decode_times_real_time']:.0f} x decode, {args.threads} threads"
    )


if __name__ == "__main__":
    main()
