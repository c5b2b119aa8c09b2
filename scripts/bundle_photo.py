"""Put a finished training run into the package as a bundled tokenizer of photos.

Copies the weights and the config to ``vqtok/pretrained/NAME`` (the version before it moves, see
``bundled.py``) and writes the model card beside them: what it is, its figures on a folder of
evaluation photos (measured here and now), how quality grew with training, what it was trained on
under which licences, and how. If ``ablate_photo.py`` left its table in a run's folder, that too.
Of several runs, each went on from the one before it (or is it, with its codebook fitted anew), and
the last is bundled.

    python scripts/bundle_photo.py photo-lm CORPUS KODAK work/photo-lm work/photo-lm-2
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundled import put
from evaluate import evaluate
from select_photos import selected
from tqdm import tqdm

from vqtok.cli import exit_code
from vqtok.media.images import read_image
from vqtok.media.sources import Source
from vqtok.tokenizer import ImageTokenizer, Tokenizer

CARD = """\
# {name}

{what}
{parameters:.2f} million parameters, {megabytes:.1f} MB. Fingerprint `{fingerprint}`.

## Figures

On {images} photos that it was not trained on (the Kodak suite, 768 x 512), mean PSNR over RGB:

| codebooks | bpp, fixed width | bpp, order-0 entropy | PSNR dB | last codebook's usage |
|---|---|---|---|---|
{rates}

Cut into {crops} squares of 256 x 256: {crop_psnr} dB. Over {held_codes:,} codes of {held} photos
of its corpus that it was not trained on, and of these, the usage of each codebook is {usage}.
Made by `python scripts/evaluate.py {name} KODAK` (`--crop 256`) and `scripts/bundle_photo.py`.
Nothing was tuned for how textures look, and where one code stands for many pixels they look smooth.
Not made for text, drawings or medical images.

## Training

`scripts/train_bundled.sh {name} KODAK` on {photos} photos, AdamW with a rate that falls to zero,
weights averaged. vqtok {vqtok}, torch {torch}, Python {python}, {threads} thread(s) of {machine}.

{phases}

Quality against training: the mean PSNR of 16 squares of 256 x 256 pixels of the evaluation photos
(a fixed batch; the averaged weights). Hours are those of the clock.

| steps | megapixels seen | hours | PSNR dB |
|---|---|---|---|
{history}
{ablations}
## Sources and licences of the training photos

All from Debian 12 packages; material under GPL terms alone was left out, and so were vqtok's own
sample photos and those smaller than a crop.

| package | photos | licence |
|---|---|---|
{sources}
"""
ABLATIONS = "## What each choice brings\n"
ONE_CODEBOOK = """\
A tokenizer for photos that language models are to make or read: downsample {downsample}, one
codebook of {size:,} embeddings of dimension {dim}. One code stands for {downsample} x {downsample}
pixels, so a picture of 256 x 256 is a sequence of {sequence}."""
RESIDUAL = """\
A tokenizer for photos: downsample {downsample}, {codebooks} residual codebooks of {size:,}
embeddings of dimension {dim}. One code stands for {downsample} x {downsample} pixels; the first q
codebooks are a coarser description, so one model serves {codebooks} rates."""


def main() -> None:
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    name, (corpus, photos, *runs) = sys.argv[1], (Path(argument) for argument in sys.argv[2:])
    run = runs[-1]
    tokenizer = Tokenizer.from_pretrained(run)
    assert isinstance(tokenizer, ImageTokenizer)
    target = put(run, name)
    result = evaluate(tokenizer, str(photos))
    squares = evaluate(tokenizer, str(photos), 256)
    rates = [
        f"| {rate['num_codebooks']} | {rate['bpp_fixed']:.4f} | {rate['bpp_order0']:.4f} "
        f"| {rate['psnr_db']:.2f} | {rate['usage']:.1%} |"
        for rate in result["rates"]
    ]
    ablations = [each / "ablations.md" for each in runs if (each / "ablations.md").exists()]
    card = CARD.format(
        images=result["images"],
        rates="\n".join(rates),
        crops=squares["images"],
        crop_psnr=", ".join(f"{rate['psnr_db']:.2f}" for rate in squares["rates"]),
        megabytes=(target / "model.safetensors").stat().st_size / 1e6,
        phases="\n".join(phase(each) for each in runs),
        history="\n".join(history(runs)),
        ablations="".join(f"\n{each.read_text(encoding='utf-8')}" for each in ablations),
        sources="\n".join(source_lines(corpus, tokenizer)),
        **held_out(tokenizer, corpus, photos),
        **facts(name, tokenizer),
    )
    (target / "README.md").write_text(card, encoding="utf-8")


def facts(name: str, tokenizer: ImageTokenizer) -> dict[str, Any]:
    """What the card says of the model and of its training."""
    model = {
        "downsample": tokenizer.downsample,
        "codebooks": tokenizer.num_codebooks,
        "size": tokenizer.codebook_sizes[0],
        "dim": tokenizer.autoencoder.quantizer.dim,
        "sequence": (256 // tokenizer.downsample) ** 2,
    }
    return {
        "name": name,
        "what": (RESIDUAL if tokenizer.num_codebooks > 1 else ONE_CODEBOOK).format(**model),
        "parameters": sum(p.numel() for p in tokenizer.autoencoder.parameters()) / 1e6,
        "fingerprint": tokenizer.fingerprint,
        "photos": tokenizer.training["sources"],
        **{
            key: tokenizer.training[key]
            for key in ("vqtok", "torch", "python", "threads", "machine")
        },
    }


def held_out(tokenizer: ImageTokenizer, corpus: Path, photos: Path) -> dict[str, Any]:
    """The usage of codebooks over more photos than the evaluation set has."""
    others = sorted(set((corpus / "train").resolve().glob("*.jpg")) - set(selected(corpus)))
    used = [np.zeros(size, bool) for size in tokenizer.codebook_sizes]
    codes_seen = 0
    for path in tqdm([*others, *sorted(photos.glob("*.png"))], desc="usage"):
        pixels = read_image(Source(path.name, str(path))).pixels
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        codes = tokenizer.encode(image)[0].numpy()
        codes_seen += codes.shape[0] * codes.shape[1]
        for q, seen in enumerate(used):
            seen[codes[..., q]] = True
    usage = ", ".join(f"{seen.mean():.1%}" for seen in used)
    return {"held": len(others), "held_codes": codes_seen, "usage": usage}


def phase(run: Path) -> str:
    """A line on what a run did."""
    tokenizer = Tokenizer.from_pretrained(run)
    if fitted := tokenizer.training.get("refit"):
        return (
            f"- The codebook fitted anew, by {fitted['iterations']} iterations on "
            f"{fitted['latents']:,} latents\n  (`scripts/refit_codebook.py`)."
        )
    settings, config = tokenizer.training["train"], tokenizer.config
    edges = config.get("likelihood", {}).get("edges", 0)
    objective = "squared error" + (
        f" and the error of steps with weight {edges:g}" if edges else ""
    )
    return (
        f"- {settings['steps']:,} steps of {settings['batch_size']} crops of {settings['crop']} x "
        f"{settings['crop']} pixels:\n  {objective}, peak rate {settings['learning_rate']:g}, seed "
        f"{settings['seed']}."
    )


def history(runs: list[Path]) -> list[str]:
    """Table rows from the runs' logs: every checkpoint that was scored, in order."""
    found: dict[int, str] = {}  # by step: a run that is asked again is scored again
    steps, megapixels, seconds = 0, 0.0, 0.0
    for run in runs:
        if not (run / "metrics.jsonl").exists():  # a codebook fitted anew
            continue
        settings: dict[str, Any] = Tokenizer.from_pretrained(run).training["train"]
        batch = settings["batch_size"]
        per_step = batch * settings["crop"] ** 2 / 1e6
        text = (run / "metrics.jsonl").read_text(encoding="utf-8")
        last, elapsed = 0, 0.0
        for line in map(json.loads, text.splitlines()):
            if "validation_psnr" in line:
                step = line["step"]
                score = ", ".join(f"{value:.2f}" for value in line["validation_psnr"])
                row = f"| {steps + step:,} | {megapixels + step * per_step:,.0f} "
                found[steps + step] = f"{row}| {(seconds + elapsed) / 3600:.2f} | {score} |"
            elif "samples_per_second" in line:  # a mean since the run began or went on
                elapsed += (line["step"] - last) * batch / line["samples_per_second"]
                last = line["step"]
        steps, megapixels, seconds = steps + last, megapixels + last * per_step, seconds + elapsed
    return list(found.values())


def source_lines(corpus: Path, tokenizer: ImageTokenizer) -> list[str]:
    """Table rows: package, number of photos, licence."""
    least = tokenizer.training["train"]["crop"]
    used = {path.name for path in selected(corpus) if smallest_side(path) >= least}
    with open(corpus / "manifest.tsv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["file"] in used]
    counts = Counter((row["deb_package"], row["licence"]) for row in rows)
    return [f"| {package} | {count} | {licence} |" for (package, licence), count in counts.items()]


def smallest_side(path: Path) -> int:
    return int(min(read_image(Source(path.name, str(path))).pixels.shape[:2]))


if __name__ == "__main__":
    sys.exit(exit_code(main))
