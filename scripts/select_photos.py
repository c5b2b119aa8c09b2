"""List the photos of a corpus that the bundled tokenizers may be trained on.

A corpus is a folder with a ``manifest.tsv`` (columns ``file`` and ``licence`` at least) and the
photos in ``train/``. Material under GPL terms alone is left out, and so are the photos that vqtok
bundles as samples, since the demo shows what the tokenizer does with photos it never saw.

    python scripts/select_photos.py CORPUS > photos.txt
    vqtok train photo --data photos.txt --out runs/photo
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from vqtok.cli import exit_code

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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", metavar="CORPUS", type=Path)
    print("\n".join(str(path) for path in selected(parser.parse_args().corpus)))


if __name__ == "__main__":
    sys.exit(exit_code(main))
