"""List the photos of a corpus that the bundled tokenizers may be trained on.

A corpus is a folder with a ``manifest.tsv`` (columns ``file`` and ``licence`` at least) and the
photos in ``train/``. Material under GPL terms alone is left out, and so are the photos that vqtok
bundles as samples, since the demo shows what the tokenizer does with photos it never saw.

    python scripts/select_photos.py CORPUS > photos.txt
    vqtok train photo --data photos.txt --out runs/photo

With ``--longest N`` photos whose longer side is above N pixels are reduced to that, in ``CORPUS-N``
beside the corpus; those that are there already are kept.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from PIL import Image

from vqtok.cli import exit_code
from vqtok.cli.common import positive

GPL_ONLY = {
    "GPL-2+ (demo photos)",
    "GPL-2+ (grayscale photos)",
    "GPL-2+ (some CC-BY-SA)",
    "GPL/CC per file",
}
BUNDLED_SAMPLES = {
    "python3-skimage__astronaut.jpg",
    "python3-skimage__chelsea.jpg",
    "python3-skimage__coffee.jpg",
    "python3-skimage__rocket.jpg",
    "python3-sklearn__china.jpg",
    "python3-sklearn__flower.jpg",
    "krank__level-09.jpg",
    "krank__level-14.jpg",
}


def selected(corpus: Path) -> list[Path]:
    """The photos to train on, in the manifest's order."""
    with open(corpus / "manifest.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    names = [row["file"] for row in rows if row["licence"] not in GPL_ONLY]
    paths = [corpus / "train" / name for name in names if name not in BUNDLED_SAMPLES]
    return [path.resolve() for path in paths if path.is_file()]


def reduced(path: Path, longest: int, folder: Path) -> Path:
    """A photo of at most so many pixels on its longer side: itself, or a copy in the folder."""
    with Image.open(path) as photo:
        if max(photo.size) <= longest:
            return path
        copy = folder / path.name
        if not copy.exists():
            folder.mkdir(exist_ok=True)
            part = copy.with_suffix(".part")  # no half file stays under its name
            photo.thumbnail((longest, longest), Image.Resampling.LANCZOS, reducing_gap=3.0)
            photo.convert("RGB").save(part, "JPEG", quality=95, subsampling=0)
            part.rename(copy)
    return copy


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", metavar="CORPUS", type=Path)
    parser.add_argument("--longest", type=positive, metavar="N", help="reduce photos to N pixels")
    args = parser.parse_args()
    paths = selected(args.corpus)
    if args.longest:
        folder = args.corpus.resolve().with_name(f"{args.corpus.resolve().name}-{args.longest}")
        paths = [reduced(path, args.longest, folder) for path in paths]
    print("\n".join(map(str, paths)))


if __name__ == "__main__":
    sys.exit(exit_code(main))
