"""Put a finished training run into the package as the bundled ``photo`` tokenizer.

Copies the weights and the config to ``vqtok/pretrained/photo`` and writes the model card beside
them: what it is, its figures on a folder of evaluation photos (measured here and now), what it
was trained on under which licences, and how.

    python scripts/bundle_photo.py runs/photo CORPUS KODAK
"""

from __future__ import annotations

import csv
import shutil
import sys
from collections import Counter
from pathlib import Path

from evaluate import evaluate
from select_photos import selected

from vqtok.tokenizer import Tokenizer

CARD = """\
# photo

A tokenizer for photos: downsample {downsample}, {codebooks} residual codebooks of {size:,}
embeddings of dimension {dim}. One code stands for {downsample} x {downsample} pixels; the first q
codebooks are a coarser description, so one model serves {codebooks} rates.
{parameters:.2f} million parameters, {megabytes:.1f} MB. Fingerprint `{fingerprint}`.

## Figures

On {images} photos that it was not trained on (the Kodak suite, 768 x 512), mean PSNR over RGB:

| codebooks | bpp, fixed width | bpp, order-0 entropy | PSNR dB | last codebook's usage |
|---|---|---|---|---|
{rates}

Made by `python scripts/evaluate.py photo KODAK`. PSNR was the training objective; nothing was
tuned for how textures look, and at one codebook they look smooth. Not made for text, drawings or
medical images.

## Training

`scripts/train_photo.sh CORPUS` on {photos} photos: {steps:,} steps of {batch} crops of
{crop} x {crop} pixels, mean squared error, AdamW with a peak rate of {rate:g}, weights averaged,
seed {seed}. vqtok {vqtok}, torch {torch}, Python {python}, {threads} threads of {machine}.

## Sources and licences of the training photos

All from Debian 12 packages; material under GPL terms alone was left out, and so were vqtok's own
sample photos.

| package | photos | licence |
|---|---|---|
{sources}
"""


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    run, corpus, photos = (Path(argument) for argument in sys.argv[1:])
    tokenizer = Tokenizer.from_pretrained(run)
    target = Path(__file__).resolve().parent.parent / "vqtok" / "pretrained" / "photo"
    target.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(run / name, target / name)
    result = evaluate(tokenizer, str(photos))
    rates = [
        f"| {rate['num_codebooks']} | {rate['bpp_fixed']:.4f} | {rate['bpp_order0']:.4f} "
        f"| {rate['psnr_db']:.2f} | {rate['usage']:.1%} |"
        for rate in result["rates"]
    ]
    settings = tokenizer.training["train"]
    card = CARD.format(
        downsample=tokenizer.downsample,
        codebooks=tokenizer.num_codebooks,
        size=tokenizer.codebook_sizes[0],
        dim=tokenizer.autoencoder.quantizer.dim,
        parameters=sum(p.numel() for p in tokenizer.autoencoder.parameters()) / 1e6,
        megabytes=(target / "model.safetensors").stat().st_size / 1e6,
        fingerprint=tokenizer.fingerprint,
        images=result["images"],
        rates="\n".join(rates),
        photos=tokenizer.training["sources"],
        steps=settings["steps"],
        batch=settings["batch_size"],
        crop=settings["crop"],
        rate=settings["learning_rate"],
        seed=settings["seed"],
        sources="\n".join(source_lines(corpus)),
        **{key: tokenizer.training[key] for key in ("vqtok", "torch", "python", "threads")},
        machine=tokenizer.training["machine"],
    )
    (target / "README.md").write_text(card, encoding="utf-8")


def source_lines(corpus: Path) -> list[str]:
    """Table rows: package, number of photos, licence."""
    used = {path.name for path in selected(corpus)}
    with open(corpus / "manifest.tsv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["file"] in used]
    counts = Counter((row["deb_package"], row["licence"]) for row in rows)
    return [f"| {package} | {count} | {licence} |" for (package, licence), count in counts.items()]


if __name__ == "__main__":
    main()
