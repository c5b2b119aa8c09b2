"""Collect the photos that the bundled photo tokenizers are trained on.

    python scripts/get_corpus.py OUT

Downloads the Debian packages of ``corpus/packages.tsv`` (``apt-get download``, checked by SHA-256,
nothing is installed), unpacks them in OUT, and writes the photos of ``corpus/photos.tsv``, which
were picked by eye:

- ``OUT/train/``: the photos at full resolution, those above 2,048 pixels reduced to that; a photo
  that is a file of a package is copied as it is, one that lies inside a larger file is cut out.
- ``OUT/manifest.tsv``: file, package, licence (for ``select_photos.py``).

What is there already is kept, so that an interrupted run goes on. Needs apt-get and dpkg of
Debian 12, 0.9 GB of downloads and 2.5 GB of room.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import sys
from functools import cache
from pathlib import Path

from debian import fetch
from PIL import Image

from vqtok.cli import exit_code

HERE = Path(__file__).resolve().parent / "corpus"
LONGEST = 2048
_START = re.compile(rb"RIFF....WEBP|\xff\xd8\xff[\xdb\xe0\xe1\xee]", re.DOTALL)


def table(name: str) -> list[dict[str, str]]:
    """The rows of a table beside this script."""
    with open(HERE / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@cache
def images_inside(path: Path) -> list[memoryview]:
    """Everything in a file that begins like a WebP or JPEG, in order, to the end of the file."""
    data = memoryview(path.read_bytes())
    return [data[match.start() :] for match in _START.finditer(data)]


def content(root: Path, path: str) -> bytes:
    """A file of a package; of ``path#n``, the n-th image inside it."""
    if "#" not in path:
        return (root / path).read_bytes()
    path, number = path.rsplit("#", 1)
    return bytes(images_inside(root / path)[int(number)])


def write_photo(data: bytes, target: Path) -> None:
    """A photo as it is if it may stay so, else as JPEG; the name's ending stays .jpg."""
    photo: Image.Image = Image.open(io.BytesIO(data))
    if photo.format != "JPEG" or max(photo.size) > LONGEST or not data.endswith(b"\xff\xd9"):
        photo = photo.convert("RGB")
        photo.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS, reducing_gap=3.0)
        buffer = io.BytesIO()
        photo.save(buffer, "JPEG", quality=95, subsampling=0)
        data = buffer.getvalue()
    part = target.with_suffix(".part")  # no half photo stays under its name
    part.write_bytes(data)
    part.rename(target)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", metavar="OUT", type=Path)
    out = parser.parse_args().out.resolve()
    (out / "train").mkdir(parents=True, exist_ok=True)
    roots = {
        name: fetch(name, sha256, out / "debs", out / "packages" / name, version)
        for name, version, sha256 in (each.values() for each in table("packages.tsv"))
    }
    photos = table("photos.tsv")
    for photo in photos:
        target = out / "train" / photo["file"]
        if not target.exists():
            write_photo(content(roots[photo["package"]], photo["path"]), target)
    with open(out / "manifest.tsv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, delimiter="\t", lineterminator="\n")
        rows.writerow(["file", "deb_package", "licence"])
        rows.writerows([each["file"], each["package"], each["licence"]] for each in photos)
    print(f"{len(photos)} photos in {out / 'train'}")


if __name__ == "__main__":
    sys.exit(exit_code(main))
