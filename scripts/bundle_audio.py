"""Put a finished training run into the package as the bundled ``audio`` tokenizer.

Copies the weights and the config to ``vqtok/pretrained/audio`` and writes the model card beside
them: what it is, its figures on evaluation sounds beside Opus and MP3 (JSON lines that
``evaluate_audio.py --json`` made of the run), how it learned, and what from under which licences.

    python scripts/bundle_audio.py runs/audio WORK/sources.tsv speech.jsonl music.jsonl sfx.jsonl
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from evaluate_audio import table

from vqtok.tokenizer import Tokenizer
from vqtok.tokenizer.audio import AudioTokenizer

CARD = """\
# audio

A tokenizer for sound at {kilohertz:g} kHz: {codebooks} residual codebooks of {size:,} embeddings of
dimension {dim}, {frame_rate:g} frames a second. The first q codebooks are a coarser description,
so one model serves {codebooks} rates, {lowest:g} to {highest:g} kbit/s for each channel.
{parameters:.2f} million parameters, {megabytes:.1f} MB. Fingerprint `{fingerprint}`.

## Figures

On sounds that it was not trained on, one channel, means over the sounds. kbps: of the codes at
fixed width; order-0: at the entropy of each codebook's own statistics; for Opus and MP3 of the
packets alone. mel and spectrum are distances (`vqtok.nn.sound_losses.SoundLoss`); lower is better.
Opus decodes to narrow band at its lowest rates. SI-SDR asks for the waveform, which codecs that
keep what is heard need not.

{speech_sounds} recordings of speech (LibriSpeech, 16 kHz originals):

{speech}

{music_sounds} excerpts of music:

{music}

{sfx_sounds} short recordings of animals, weather, machines and people (ESC-10):

{sfx}

Made by `python scripts/evaluate_audio.py audio SPEECH --speech --codebooks 0 1 2 4 6 8` and the
same without `--speech` for the others. "unquantized" passes the latents themselves, which shows
what the codes cost. There was no adversary in the training, and nobody has judged the
sound by ear yet.

## Training

`scripts/train_audio.sh` on {sounds:,} sounds: {steps:,} steps of {batch} excerpts of
{seconds:g} s ({hours:.1f} hours of sound seen), distances of mel spectra, complex spectra and
samples (weights {mel:g}, {spectrum:g}, {samples:g}), AdamW with a peak rate of {rate:g}, weights
averaged, seed {seed}. vqtok {vqtok}, torch {torch}, Python {python}, {threads} threads of
{machine}.{stopped}

Mel distance of {validation} of evaluation sounds as training went on:

| steps | hours of sound seen | all codebooks | unquantized |
|---|---|---|---|
{history}

## Recipes that were tried

PESQ-wb and STOI of 12 of these recordings (5 s each), unquantized and at 6 kbit/s, against the
processor time of one thread. Small runs that chose the recipe, 8 excerpts of 1 s a step:

| recipe | minutes | unquantized | at 6 kbit/s |
|---|---|---|---|
| before training: the transform alone, codebooks by k-means | 0.1 | 3.39, 1.000 | 1.15, 0.756 |
| as chosen (weights 1, 0.5, 0.5) | 1.3 | 2.17, 0.959 | 1.29, 0.816 |
| as chosen | 2.5 | 1.86, 0.941 | 1.31, 0.844 |
| as chosen | 4.4 | 2.24, 0.964 | 1.40, 0.864 |
| complex spectra with weight 2 | 1.3 | 2.30, 0.962 | 1.28, 0.815 |
| complex spectra with weight 2 | 2.4 | 1.93, 0.947 | 1.32, 0.834 |
| 160-d latents at 50 Hz, at 4 kbit/s | 1.5 | 1.86, 0.952 | 1.20, 0.794 |

Earlier, with two threads and other recordings: magnitude and phase through an inverse STFT and MDCT
coefficients, both with 32-d latents at 50 Hz, reached 1.10 and 0.72 (20 minutes) and 0.68 (13
minutes) at 6 kbit/s, hardly more without codes: too few latents, not too few codes, were the limit.

## Sources and licences of the training sounds

Debian 12 packages, and two public collections of speech. Material under GPL terms was left out, and
of the sounds counted here those shorter than half a second.

| source | sounds | minutes | licence |
|---|---|---|---|
{sources}
"""


def main() -> None:
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    run, sources, *figures = (Path(argument) for argument in sys.argv[1:])
    tokenizer = Tokenizer.from_pretrained(run)
    assert isinstance(tokenizer, AudioTokenizer)
    target = Path(__file__).resolve().parent.parent / "vqtok" / "pretrained" / "audio"
    target.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(run / name, target / name)
    speech, music, sfx = (read_figures(file, tokenizer) for file in figures)
    card = CARD.format(
        speech=table(speech),
        music=table(music),
        sfx=table(sfx),
        speech_sounds=speech[0]["sounds"],
        music_sounds=music[0]["sounds"],
        sfx_sounds=sfx[0]["sounds"],
        megabytes=(target / "model.safetensors").stat().st_size / 1e6,
        history="\n".join(history(run, tokenizer)),
        sources="\n".join(source_lines(sources)),
        **facts(tokenizer),
    )
    (target / "README.md").write_text(card, encoding="utf-8")


def read_figures(file: Path, tokenizer: AudioTokenizer) -> list[dict[str, Any]]:
    """The rows of a file; they must be of this tokenizer."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    made_of = {row["fingerprint"] for row in rows if "fingerprint" in row}
    if made_of != {tokenizer.fingerprint}:
        sys.exit(f"{file} has figures of {made_of}, the run is {tokenizer.fingerprint}")
    return rows


def facts(tokenizer: AudioTokenizer) -> dict[str, Any]:
    """What the card says of the model and of its training."""
    training, settings = tokenizer.training, tokenizer.training["train"]
    likelihood = tokenizer.config["likelihood"]
    bits = (tokenizer.codebook_sizes[0] - 1).bit_length() * tokenizer.frame_rate / 1000
    seconds = settings["crop"] / tokenizer.sample_rate
    stopped = ""
    if training["step"] < settings["steps"]:
        stopped = f" Stopped after {training['step']:,} steps."
    return {
        "kilohertz": tokenizer.sample_rate / 1000,
        "codebooks": tokenizer.num_codebooks,
        "size": tokenizer.codebook_sizes[0],
        "dim": tokenizer.autoencoder.quantizer.dim,
        "frame_rate": tokenizer.frame_rate,
        "lowest": bits,
        "highest": bits * tokenizer.num_codebooks,
        "parameters": sum(p.numel() for p in tokenizer.autoencoder.parameters()) / 1e6,
        "fingerprint": tokenizer.fingerprint,
        "sounds": training["sources"],
        "steps": settings["steps"],
        "batch": settings["batch_size"],
        "seconds": seconds,
        "hours": training["step"] * settings["batch_size"] * seconds / 3600,
        "rate": settings["learning_rate"],
        "seed": settings["seed"],
        "stopped": stopped,
        "validation": "a fixed batch",
        **{key: likelihood[key] for key in ("mel", "spectrum", "samples")},
        **{key: training[key] for key in ("vqtok", "torch", "python", "threads", "machine")},
    }


def history(run: Path, tokenizer: AudioTokenizer) -> list[str]:
    """Table rows from the run's log: about eight checkpoints and the last."""
    settings = tokenizer.training["train"]
    hours = settings["batch_size"] * settings["crop"] / tokenizer.sample_rate / 3600
    text = (run / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [line for line in map(json.loads, text.splitlines()) if "validation" in line]
    every = -(-len(lines) // 8)
    kept = [line for index, line in enumerate(lines, 1) if index % every == 0]
    if lines and kept[-1:] != lines[-1:]:
        kept.append(lines[-1])
    return [
        f"| {line['step']:,} | {line['step'] * hours:.1f} | {line['validation']['mel']:.3f} "
        f"| {line['validation_unquantized']['mel']:.3f} |"
        for line in kept
    ]


def source_lines(sources: Path) -> list[str]:
    """Table rows: source, sounds, minutes, licence."""
    with open(sources, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    keys = ("source", "sounds", "minutes", "licence")
    return ["| " + " | ".join(row[key] for key in keys) + " |" for row in rows]


if __name__ == "__main__":
    main()
