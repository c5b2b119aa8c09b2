"""Put a finished training run into the package as the bundled ``audio`` tokenizer.

    python scripts/bundle_audio.py runs/audio
    python scripts/bundle_audio.py runs/audio WORK/sources.tsv speech.jsonl music.jsonl sfx.jsonl

The first makes the run the latest version of ``audio`` (see bundled.py). The second writes the
model card beside it: what it is, its figures on evaluation sounds beside other codecs (JSON lines
that ``evaluate_audio.py --json`` made of it), how it learned, and what from under which licences.
Sections of other scripts (recipes, the prior) stay in the card.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

from audio_recipes import HEADING as RECIPES
from bundled import PRETRAINED, put
from evaluate_audio import table
from train_priors import HEADING as PRIOR

from vqtok.cli import exit_code
from vqtok.tokenizer import AudioTokenizer, Tokenizer, bundled_versions

CARD = """\
# audio

A tokenizer for sound at {kilohertz:g} kHz: {codebooks} residual codebooks of {size:,} embeddings of
dimension {dim}, {frame_rate:g} frames a second. The first q codebooks are a coarser description,
so one model serves {codebooks} rates, {lowest:g} to {highest:g} kbit/s for each channel at fixed
width; with the prior, files take about {share:.0%} of that. Codes are found by a beam search of
{beam} over the codebooks.
{parameters:.2f} million parameters, {megabytes:.1f} MB. Fingerprint `{fingerprint}`.

## Figures

On sounds that it was not trained on, one channel, means over the sounds. kbps fixed: of the codes,
each ten bits wide (`--pack bits`); kbps: all bytes of the codes in files packed with
`--pack entropy`; for the other codecs of the packets alone. mel, STFT and spectrum are distances:
lower is better. mel is of mel spectra, spectrum of complex ones, so that phases count
(`vqtok.nn.sound_losses.SoundLoss`); STFT is of magnitudes, whatever their phases, as papers since
that of DAC report it (`vqtok.bench.metrics.sound.stft_distance`), at 24 kHz: it grows large where a
codec leaves the treble silent. Opus decodes to narrow band at its lowest rates, codec2 is made for
8 kHz. spectrum and SI-SDR ask for the waveform, which codecs that keep what is heard need not: by
spectrum Opus and MP3, from the lowest rates on, are ahead of all rates here.

{speech_sounds} recordings of speech (LibriSpeech, 16 kHz originals):

{speech}

{music_sounds} excerpts of music:

{music}

{sfx_sounds} short recordings of animals, weather, machines and people (ESC-10):

{sfx}

Made by `python scripts/evaluate_audio.py audio SPEECH --speech --codebooks {rates}` and the
same without `--speech` for the others. "unquantized" passes the latents themselves, which shows
what the codes cost. PESQ favours what was trained for: the loss has a term of loudness after the
same recommendation (`vqtok.nn.sound_loudness`), beside distances that know nothing of it. There was
no adversary in the training, and nobody has judged the sound by ear yet. Steady tones alone, such
as a sine of more than some 800 Hz, do not come back: nothing that it was trained on is like them.

## Training

`scripts/train_audio.sh` on {sounds:,} sounds, those of LibriSpeech six times: {steps:,} steps of
{batch} excerpts of {seconds:g} s ({hours:.1f} hours of sound seen) from the weights of `{start}`
and further codebooks by k-means; distances of mel spectra, complex spectra and samples, and
loudness (weights {mel:g}, {spectrum:g}, {samples:g}, {loudness:g}), AdamW with a peak rate of
{rate:g} that falls to zero, weights averaged, seed {seed}. vqtok {vqtok}, torch {torch}, Python
{python}, {threads} threads of {machine}.{stopped}

Distances of a fixed batch of evaluation sounds as training went on, coded with all codebooks
greedily and unquantized; hours are those of the training, on a machine with other work:

| steps | hours | hours of sound seen | mel | mel, unquantized | spectrum | spectrum, unquantized |
|---|---|---|---|---|---|---|
{history}

## Sources and licences of the training sounds

Debian 12 packages, and two public collections of speech. Material under GPL terms was left out, and
of the sounds counted here those shorter than half a second.

| source | sounds | minutes | licence | for |
|---|---|---|---|---|
{sources}
"""


def main() -> None:
    if len(sys.argv) not in (2, 6):
        sys.exit(__doc__)
    run, *files = (Path(argument) for argument in sys.argv[1:])
    if not files:
        put(run, "audio")
        return
    write_card(run, *files)


def write_card(run: Path, sources: Path, *figures: Path) -> None:
    """The card of the run, which is the bundled tokenizer now."""
    tokenizer = Tokenizer.from_pretrained("audio")
    assert isinstance(tokenizer, AudioTokenizer)
    if Tokenizer.from_pretrained(run).fingerprint != tokenizer.fingerprint:
        sys.exit(f"{run} is not the run that is bundled: {tokenizer.fingerprint}")
    target = PRETRAINED / "audio"
    speech, music, sfx = (read_figures(file, tokenizer) for file in figures)
    coded = next(row for row in reversed(speech) if "kbps_fixed" in row)
    card = CARD.format(
        share=coded["kbps"] / coded["kbps_fixed"],
        speech=table(speech),
        music=table(music),
        sfx=table(sfx),
        speech_sounds=speech[0]["sounds"],
        music_sounds=music[0]["sounds"],
        sfx_sounds=sfx[0]["sounds"],
        rates=" ".join(map(str, rates(speech))),
        megabytes=(target / "model.safetensors").stat().st_size / 1e6,
        history="\n".join(history(run, tokenizer)),
        sources="\n".join(source_lines(sources)),
        **facts(tokenizer),
    )
    file = target / "README.md"
    old = file.read_text(encoding="utf-8") if file.exists() else ""
    kept = [section(old, heading) for heading in (RECIPES, PRIOR)]
    file.write_text("\n".join([card, *filter(None, kept)]), encoding="utf-8")


def section(card: str, heading: str) -> str:
    """A section of a card, or nothing."""
    _, found, rest = card.partition(heading)
    return found + rest.split("\n## ")[0].rstrip("\n") + "\n" if found else ""


def read_figures(file: Path, tokenizer: AudioTokenizer) -> list[dict[str, Any]]:
    """The rows of a file; they must be of this tokenizer."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    made_of = {row["fingerprint"] for row in rows if "fingerprint" in row}
    if made_of != {tokenizer.fingerprint}:
        sys.exit(f"{file} has figures of {made_of}, the run is {tokenizer.fingerprint}")
    return rows


def rates(rows: list[dict[str, Any]]) -> list[int]:
    """The numbers of codebooks that were scored, 0 for none."""
    scored = [row["codec"].split(", ")[-1] for row in rows if "fingerprint" in row]
    return [0 if each == "unquantized" else int(each.split(" of ")[0]) for each in scored]


def facts(tokenizer: AudioTokenizer) -> dict[str, Any]:
    """What the card says of the model and of its training."""
    training, settings = tokenizer.training, tokenizer.training["train"]
    start = next(
        (each.name for each in bundled_versions() if each.fingerprint == training["init"]),
        training["init"],
    )
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
        "beam": tokenizer.config["quantizer"]["beam"],
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
        "start": start,
        **{key: likelihood[key] for key in ("mel", "spectrum", "samples", "loudness")},
        **{key: training[key] for key in ("vqtok", "torch", "python", "threads", "machine")},
    }


def history(run: Path, tokenizer: AudioTokenizer) -> list[str]:
    """Table rows from the run's log: about eight checkpoints and the last."""
    settings = tokenizer.training["train"]
    sound = settings["batch_size"] * settings["crop"] / tokenizer.sample_rate / 3600
    text = (run / "metrics.jsonl").read_text(encoding="utf-8")
    found, hours, last = {}, {0: 0.0}, 0
    for line in map(json.loads, text.splitlines()):
        if "validation" in line:
            found[line["step"]] = line  # a run that is asked again is scored again
            hours.setdefault(line["step"], hours[last])  # it was interrupted here
        elif line["step"] > last:  # the pace is a mean since the run began or went on
            seconds = (line["step"] - last) * settings["batch_size"] / line["samples_per_second"]
            hours[line["step"]] = hours[last] + seconds / 3600
            last = line["step"]
    lines = list(found.values())
    every = -(-len(lines) // 8)
    kept = [line for index, line in enumerate(lines, 1) if index % every == 0]
    if lines and kept[-1:] != lines[-1:]:
        kept.append(lines[-1])
    rows = []
    for line in kept:
        step = line["step"]
        coded, whole = line["validation"], line["validation_unquantized"]
        rows.append(
            f"| {step:,} | {hours[step]:.2f} | {step * sound:.1f} | "
            f"{coded['mel']:.3f} | {whole['mel']:.3f} | "
            f"{coded['spectrum']:.4f} | {whole['spectrum']:.4f} |"
        )
    return rows


def source_lines(sources: Path) -> list[str]:
    """Table rows: source, sounds, minutes, licence, what for."""
    with open(sources, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    keys = ("source", "sounds", "minutes", "licence", "for")
    return ["| " + " | ".join(row[key] for key in keys) + " |" for row in rows]


if __name__ == "__main__":
    sys.exit(exit_code(main))
