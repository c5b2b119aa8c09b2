"""Train the prior of a bundled tokenizer, put it beside the weights and describe it in the card.

    python scripts/train_priors.py photo CORPUS
    python scripts/train_priors.py audio SOUNDS VALIDATION... --batch-size 3072

CORPUS: a folder of photos with manifest.tsv (see select_photos.py); the photos that were left out
of the tokenizer's training are not trained on here either, and judge. Each photo is seen four
times: as it is, mirrored, cut so that the grid of codes falls elsewhere, and at 0.7 of its size;
half of them with codes chosen by their bits if there is a prior already, so the second run of this
command makes a prior that knows such codes, too. It goes on from the first's, in larger batches;
--afresh starts from nothing.
SOUNDS: prior.txt (see get_sounds.py), each as often as it is listed; VALIDATION: folders of sounds
to judge by.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from select_photos import selected
from tqdm import tqdm

from vqtok.cli import exit_code
from vqtok.errors import DataError
from vqtok.media import list_sources, read_image
from vqtok.media.sources import Source
from vqtok.pipeline.sounds import encode_sounds
from vqtok.tokenizer import AudioTokenizer, ImageTokenizer, Tokenizer
from vqtok.tokens.prior import Prior
from vqtok.training.prior import PriorConfig, train_prior

CARD = """\
## The prior

`prior.safetensors` ({size:,} bytes, of int8 weights) predicts codes for `--pack entropy`. Learned
from {positions:,} positions of {samples:,} {noun} in {steps:,} steps of {batch_size:,}, seed
{seed}{start} (`python scripts/train_priors.py {name}`). Bits per code of {validation} others that
it was not trained on:

| codebook | fixed width | order-0 | float twin | integer prior |
|---|---|---|---|---|
{rows}
| sum | {sums} |
"""
HEADING = "## The prior\n"
RATE_WEIGHT = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tokenizer", choices=["photo", "photo-lm", "audio"])
    parser.add_argument("data", type=Path)
    parser.add_argument("validation", type=Path, nargs="*")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch-size", type=int, help="2048, or 4096 from a prior on")
    parser.add_argument("--afresh", action="store_true", help="forget the prior that is there")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer: Any = Tokenizer.from_pretrained(args.tokenizer)
    if args.tokenizer != "audio":
        samples, validation = photo_codes(tokenizer, args.data)
    else:
        samples = list(sound_codes(tokenizer, args.data))
        validation = [codes for path in args.validation for codes in sound_codes(tokenizer, path)]
    with tqdm(total=args.steps) as bar:

        def progress(step: int, bits: float) -> None:
            bar.update()
            bar.set_postfix(bits=f"{bits:.3f}", refresh=False)

        config = PriorConfig(steps=args.steps)
        start = None if args.afresh else tokenizer.prior
        if start is not None:
            config = replace(config, batch_size=4096, learning_rate=1.5e-3, seed=7)
        if args.batch_size is not None:
            config = replace(config, batch_size=args.batch_size)
        prior = train_prior(tokenizer, samples, config, validation, progress, start)
    bundle(prior, args.tokenizer)


def photo_codes(tokenizer: ImageTokenizer, corpus: Path) -> tuple[list[np.ndarray], ...]:
    """Codes to train on and codes to judge by."""
    chosen = selected(corpus)
    others = sorted(set((corpus / "train").resolve().glob("*.jpg")) - set(chosen))
    weight = RATE_WEIGHT if tokenizer.prior is not None else 0.0
    passes = {as_it_is: 0.0, mirrored: weight, shifted: 0.0, smaller: weight}
    samples = [
        image_codes(tokenizer, change(path), rate_weight)
        for change, rate_weight in passes.items()
        for path in tqdm(chosen, desc=change.__name__)
    ]
    return samples, [image_codes(tokenizer, as_it_is(path)) for path in others]


def image_codes(
    tokenizer: ImageTokenizer, image: Image.Image, rate_weight: float = 0.0
) -> np.ndarray:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    return tokenizer.encode(pixels, rate_weight=rate_weight)[0].numpy().astype(np.uint16)


def as_it_is(path: Path) -> Image.Image:
    return Image.fromarray(read_image(Source(path.name, str(path))).pixels)


def mirrored(path: Path) -> Image.Image:
    return as_it_is(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def shifted(path: Path) -> Image.Image:
    image = as_it_is(path)
    return image.crop((4, 4, image.width, image.height))


def smaller(path: Path) -> Image.Image:
    image = as_it_is(path)
    size = (max(16, int(image.width * 0.7)), max(16, int(image.height * 0.7)))
    return image.resize(size, Image.Resampling.LANCZOS)


def sound_codes(tokenizer: AudioTokenizer, data: Path) -> Iterator[np.ndarray]:
    """Codes of each sound, as often as it is listed."""
    listed = list_sources(data, "audio")
    often = Counter(source.path for source in listed)
    sources = list({source.path: source for source in listed}.values())
    random.Random(0).shuffle(sources)
    found = encode_sounds(tqdm(sources), tokenizer, tokenizer.num_codebooks, 1)
    for source, sample in zip(sources, found, strict=True):
        if not isinstance(sample, DataError):
            yield from [sample.codes.astype(np.uint16)] * often[source.path]


def bundle(prior: Prior, name: str) -> None:
    """Into the package, with a section of the model card."""
    folder = Path(__file__).resolve().parent.parent / "vqtok" / "pretrained" / name
    prior.save(folder / "prior.safetensors")
    facts = prior.training
    bits = [facts["bits_per_code"][key] for key in ("fixed", "order0", "float", "integer")]
    section = CARD.format(
        name=name,
        size=(folder / "prior.safetensors").stat().st_size,
        noun="photos (four times each)" if prior.modality == "image" else "sounds",
        validation=facts["validation_samples"],
        start=f", from the prior {facts['start'][:12]}... on" if "start" in facts else "",
        rows="\n".join(row(str(q + 1), values) for q, values in enumerate(zip(*bits, strict=True))),
        sums=row("", [sum(column) for column in bits]).removeprefix("|  | ").removesuffix(" |"),
        **{key: facts[key] for key in ("positions", "samples", "steps", "batch_size", "seed")},
    )
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.exists() else ""
    before = text.split(HEADING)[0].rstrip("\n")
    card.write_text(f"{before}\n\n{section}".lstrip("\n"), encoding="utf-8")


def row(label: str, values: Any) -> str:
    fixed, *others = values
    return f"| {label} | {fixed} | " + " | ".join(f"{value:.2f}" for value in others) + " |"


if __name__ == "__main__":
    sys.exit(exit_code(main))
