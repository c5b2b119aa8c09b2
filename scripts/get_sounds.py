"""Collect the sounds that the bundled ``audio`` tokenizer is trained on.

    python scripts/get_sounds.py OUT [CORPUS]

Downloads Debian packages (``apt-get download``, checked by SHA-256, nothing is installed), unpacks
them in OUT, converts G.722 prompts to FLAC, and writes

- ``OUT/sounds.txt``: what to train on (for ``vqtok train --data``), one file a line, some of them
  several times;
- ``OUT/sources.tsv``: package, sounds, minutes, licence.

CORPUS is a folder with more of them: a ``manifest.tsv`` with columns ``role``, ``file``, ``source``
and ``licence``, files relative to the folder above. Taken are those of roles ``train_*`` under the
licences below. Everything here may be used for weights that are given away; material under GPL
terms is left out. Needs apt-get, dpkg and the extra ``bench`` (PyAV).
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soundfile
from debian import fetch

from vqtok.cli import exit_code


@dataclass(frozen=True)
class Package:
    """A Debian 12 package: the files that a glob finds in it are sounds."""

    name: str
    sha256: str
    glob: str
    licence: str


_ASTERISK = "CC-BY-SA-3.0"
PACKAGES = [
    Package(
        "asterisk-core-sounds-en-g722",
        "38c5261820b406dcb0ecb37675720da2b0864850690690352ca52707eb623806",
        "usr/share/asterisk/**/*.g722",
        _ASTERISK,
    ),
    Package(
        "asterisk-core-sounds-es-g722",
        "e4e3b4281057d3b81b779298fd6be705f57411513955c518eed1bcaabbd615b8",
        "usr/share/asterisk/**/*.g722",
        _ASTERISK,
    ),
    Package(
        "asterisk-core-sounds-fr-g722",
        "7add61d5e42279ecff1bbdf842a5a946ac3644fac9a0fe44384731aa7270c8e0",
        "usr/share/asterisk/**/*.g722",
        _ASTERISK,
    ),
    Package(
        "asterisk-core-sounds-it-g722",
        "46b4cf7afc508a5fcfc051b7ea233251c0d195dd4ef83cc4b7facb4c6429b016",
        "usr/share/asterisk/**/*.g722",
        _ASTERISK,
    ),
    Package(
        "asterisk-core-sounds-ru-g722",
        "673b4238a6b8269960f055d868c6a11083f7a0d00979167cb01554046b48ed9b",
        "usr/share/asterisk/**/*.g722",
        _ASTERISK,
    ),
    Package(
        "festvox-ru",
        "21ef3f0f2978ecf2e2eddb367cb0ff4a72572196d28dc69feb84f4177af5e6c4",
        "usr/share/festival/**/*.wav",
        "BSD-like (Festvox)",
    ),
    Package(
        "marsshooter-data",
        "b8d040a9739434f2be96bbf9b38f0743d56d59b853647b2242f9357e38394951",
        "usr/share/games/marsshooter/audio/music/*.ogg",
        "CC-BY-SA-3.0",
    ),
    Package(
        "fretsonfire-songs-muldjord",
        "b37adf8b08b46d4182c283e760e4f40622d83674e05803960ea1e11a92600c7b",
        "usr/**/*.ogg",
        "CC-BY-SA-3.0",
    ),
    Package(
        "fretsonfire-songs-sectoid",
        "14c1ed3e43c1a6a80eae7698f0469a0825cd1184e441968d62df89ca418aa0b4",
        "usr/**/*.ogg",
        "MIT-style",
    ),
]

CORPUS_LICENCES = {
    "CC0-1.0",
    "CC-BY-4.0 (LibriSpeech)",
    "CC-BY-3.0/CC-BY-SA/PD",
    "CC-BY-SA-3.0",
    "CC-BY-SA-3.0/CC-BY/CC0/PD per file",
    "CC0/CC-BY/CC-BY-SA",
}

# Read speech from many speakers in many rooms is scarce: each of these counts as so many.
REPEATED = {"github:resemble-ai/Resemblyzer": 6}


def as_flac(prompt: Path) -> Path | None:
    """A G.722 file (64 kbit/s, 16 kHz) as FLAC beside it; None if it is empty."""
    target = prompt.with_suffix(".flac")
    if not target.exists():
        with av.open(str(prompt), format="g722") as file:
            frames = [frame.to_ndarray().reshape(-1) for frame in file.decode(audio=0)]
        if not frames:
            return None
        part = target.with_suffix(".part")  # no half file stays under its name
        soundfile.write(part, np.concatenate(frames), 16_000, format="FLAC")
        part.rename(target)
    return target


def of_packages(out: Path) -> list[tuple[str, str, Path]]:
    """(package, licence, file) of every sound in the packages."""
    found: list[tuple[str, str, Path]] = []
    for package in PACKAGES:
        folder = fetch(package.name, package.sha256, out / "debs", out / package.name)
        for file in sorted(folder.glob(package.glob)):
            sound = as_flac(file) if file.suffix == ".g722" else file
            if sound is not None:
                found.append((package.name, package.licence, sound))
    return found


def of_corpus(corpus: Path) -> list[tuple[str, str, Path]]:
    """(source, licence, file) of what may be taken from a corpus and is not in the packages."""
    packages = {package.name for package in PACKAGES}
    with open(corpus / "manifest.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [
        (row["source"], row["licence"], (corpus.parent / row["file"]).resolve())
        for row in rows
        if row["role"].startswith("train_")
        and row["licence"] in CORPUS_LICENCES
        and row["source"] not in packages
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", metavar="OUT", type=Path)
    parser.add_argument("corpus", metavar="CORPUS", type=Path, nargs="?")
    args = parser.parse_args()
    out = args.out.resolve()
    found = of_packages(out) + (of_corpus(args.corpus) if args.corpus else [])
    lines, totals = [], defaultdict(lambda: [0, 0.0])
    for source, licence, path in found:
        lines += [f"{path}\n"] * REPEATED.get(source, 1)
        totals[source, licence][0] += 1
        totals[source, licence][1] += soundfile.info(path).duration / 60
    (out / "sounds.txt").write_text("".join(lines), encoding="utf-8")
    with open(out / "sources.tsv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(["source", "sounds", "minutes", "licence"])
        for (source, licence), (sounds, minutes) in totals.items():
            table.writerow([source, sounds, f"{minutes:.1f}", licence])
    print(f"{len(found)} sounds in {out / 'sounds.txt'}")


if __name__ == "__main__":
    sys.exit(exit_code(main))
