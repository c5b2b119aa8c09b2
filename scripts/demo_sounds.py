"""The sounds of the demo: several bitrates, in bytes and in mel distance, and a page to listen."""

from __future__ import annotations

import html
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from demo_common import code_bytes, codebooks, file_bytes, round_trip, run, table

from vqtok.errors import VqtokError
from vqtok.media import list_sources, read_audio, resample
from vqtok.media.audio import DecodedAudio
from vqtok.nn.sound_losses import SoundLoss
from vqtok.tokenizer import AudioTokenizer


@dataclass(frozen=True)
class Rate:
    """One pass over the sounds with the first ``num_codebooks`` codebooks."""

    num_codebooks: int
    token_bytes: int  # every file of the token dataset, headers and manifest included
    code_bytes: dict[str, int]  # per sound: its codes alone
    mel: dict[str, float]  # per sound: distance to the original
    seconds: dict[str, float]  # per command, start of the program included


def run_sounds(source: str, tokenizer_name: str, out: Path) -> str:
    """Several rates; leaves token files, sounds and ``listen.html``, returns the report."""
    tokenizer = AudioTokenizer.from_pretrained(tokenizer_name)
    sources = list_sources(source, "audio")
    originals = {each.uri: read_audio(each) for each in sources}
    sizes = {each.uri: each.size for each in sources}
    for each in sources:
        copy = out / "originals" / each.uri
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(each.path, copy)
    last = tokenizer.num_codebooks
    counts = [q for q in (1, 2, 4, 8, 16, 32) if q < last] + [last]
    rates = [measure(source, tokenizer_name, q, originals, out) for q in counts]
    inspected = run("inspect", str(out / f"tokens-{last}"))[0]
    (out / "listen.html").write_text(page(originals, rates), encoding="utf-8")
    return report_text(tokenizer, originals, sizes, rates, inspected)


def measure(
    source: str, tokenizer: str, q: int, originals: dict[str, DecodedAudio], out: Path
) -> Rate:
    """Encode, verify and decode with q codebooks; compare with the originals."""
    tokens, folder = out / f"tokens-{q}", out / f"decoded-{q}"
    seconds = round_trip(source, tokenizer, q, tokens, folder)
    mel = {
        name: mel_distance(read_audio(decoded_file(folder, name)), original)
        for name, original in originals.items()
    }
    return Rate(q, file_bytes(tokens), code_bytes(tokens), mel, seconds)


def decoded_file(folder: Path, name: str) -> Path:
    path = (folder / name).with_suffix(".wav")
    if not path.exists():
        raise VqtokError(f"{path}: was not decoded")
    return path


def mel_distance(decoded: DecodedAudio, original: DecodedAudio) -> float:
    """Mean absolute difference of log10 mel magnitudes, at 24 kHz, over channels and windows."""
    shapes = [(each.samples.shape, each.sample_rate) for each in (decoded, original)]
    if shapes[0] != shapes[1]:
        raise VqtokError(f"decoded to {shapes[0]}, the sound is {shapes[1]}")
    waves = [
        torch.from_numpy(resample(each.samples, each.sample_rate, 24_000))
        for each in (decoded, original)
    ]
    return float(SoundLoss(24_000).terms(*waves)["mel"])


def report_text(
    tokenizer: AudioTokenizer,
    originals: dict[str, DecodedAudio],
    sizes: dict[str, int],
    rates: list[Rate],
    inspected: str,
) -> str:
    """The report as Markdown, its tables readable as plain text."""
    seconds = {name: seconds_of(sound) for name, sound in originals.items()}
    total = sum(seconds.values())
    return f"""# Sounds to tokens and back

{len(originals)} sounds, {total:.1f} s, {sum(sizes.values()):,} bytes as files.

Tokenizer `{tokenizer.name}`: codebooks of {", ".join(map(str, tokenizer.codebook_sizes))}; one code
of each {tokenizer.frame_rate:g} times a second and channel; {tokenizer.sample_rate:,} Hz inside;
fingerprint `{tokenizer.fingerprint[:16]}`.

## Several rates

{rate_table(rates, total)}

Code bytes are the packed codes alone; file bytes are every file of the token dataset. Stereo has
twice the codes of mono. The mel distance is the mean over the sounds of the difference of their
log10 mel spectra at 24 kHz: lower is nearer to the original. Times include starting the program.

## Every sound

{sound_table(originals, sizes, rates)}

Code bytes and kbps are those of {codebooks(rates[-1].num_codebooks)}; the mel distance is given for
each number.

## The token files

```
{inspected.strip()}
```
"""


def seconds_of(sound: DecodedAudio) -> float:
    return sound.samples.shape[1] / sound.sample_rate


def rate_table(rates: list[Rate], seconds: float) -> str:
    """One row per number of codebooks."""
    head = ["codebooks", "code bytes", "file bytes", "kbps", "kbps of files", "mel distance"]
    rows = []
    for rate in rates:
        codes = sum(rate.code_bytes.values())
        row = [
            f"{rate.num_codebooks}",
            f"{codes:,}",
            f"{rate.token_bytes:,}",
            f"{8 * codes / seconds / 1000:.2f}",
            f"{8 * rate.token_bytes / seconds / 1000:.2f}",
            f"{np.mean(list(rate.mel.values())):.3f}",
        ]
        rows.append(row + [f"{each:.1f} s" for each in rate.seconds.values()])
    return table(head + list(rates[0].seconds), rows)


def sound_table(
    originals: dict[str, DecodedAudio], sizes: dict[str, int], rates: list[Rate]
) -> str:
    """One row per sound."""
    head = ["sound", "Hz", "channels", "seconds", "file bytes", "code bytes", "kbps"]
    head += [f"mel, q={rate.num_codebooks}" for rate in rates]
    rows = []
    for name, sound in originals.items():
        codes = rates[-1].code_bytes[name]
        row = [
            name,
            f"{sound.sample_rate}",
            f"{len(sound.samples)}",
            f"{seconds_of(sound):.2f}",
            f"{sizes[name]:,}",
            f"{codes:,}",
            f"{8 * codes / seconds_of(sound) / 1000:.2f}",
        ]
        rows.append(row + [f"{rate.mel[name]:.3f}" for rate in rates])
    return table(head, rows)


def page(originals: dict[str, DecodedAudio], rates: list[Rate]) -> str:
    """A page that plays every sound: the original, then what each number of codebooks gives."""
    columns = ["original", *(codebooks(rate.num_codebooks) for rate in rates)]
    lines = ["<!doctype html><meta charset=utf-8><title>vqtok: sounds</title><table>"]
    lines.append("".join(f"<th>{each}" for each in ["", *columns]))
    for name, sound in originals.items():
        files = [f"originals/{name}"]
        decoded = Path(name).with_suffix(".wav").as_posix()
        files += [f"decoded-{rate.num_codebooks}/{decoded}" for rate in rates]
        players = "".join(f"<td><audio controls src='{quote(each)}'></audio>" for each in files)
        lines.append(f"<tr><td>{html.escape(name)}, {seconds_of(sound):.1f} s{players}")
    return "\n".join([*lines, "</table>", ""])
