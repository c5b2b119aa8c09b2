"""Collect the sounds that the bundled ``audio`` tokenizer is trained on.

    python scripts/get_sounds.py OUT [CORPUS]

Downloads Debian packages (1.9 GB by ``apt-get download``, checked by SHA-256, nothing is
installed), unpacks them in OUT, converts G.722 prompts to FLAC, and writes

- ``OUT/sounds.txt``: what to train on (for ``vqtok train --data``), one file a line, some of them
  several times;
- ``OUT/prior.txt``: what to train its prior on, more music and all of that twice;
- ``OUT/sources.tsv``: package, sounds, minutes, licence, and which of the two it is for.

CORPUS is a folder with more of them: a ``manifest.tsv`` with columns ``role``, ``file``, ``source``
and ``licence``, files relative to the folder above. Taken are those of roles ``train_*`` under the
licences below. Everything here may be used for weights that are given away; material under GPL
terms is left out. Needs apt-get, dpkg and the extra ``bench`` (PyAV).
"""

from __future__ import annotations

import argparse
import csv
import sys
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePath

import av
import numpy as np
import soundfile
from debian import fetch

from vqtok.cli import exit_code


@dataclass(frozen=True)
class Package:
    """A Debian 12 package: what a glob finds in it, or in a zip file in it, are sounds."""

    name: str
    sha256: str
    glob: str
    licence: str
    archive: str = ""


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

_GAMES = "usr/share/games"
_BSD = "BSD-2-Clause"
# For the prior alone.
MUSIC = [
    Package(
        "singularity-music",
        "139ba1e408eeb0a72f1fff3760ca46558b9f81bed97dc8c0efa108c4007f4845",
        f"{_GAMES}/singularity/music/**/*.ogg",
        "CC-BY-SA-3.0",
    ),
    Package(
        "flare-game",
        "4ab6a8298276013d35a0806257e130d992761af1b749041433b409c3dafec508",
        f"{_GAMES}/flare/mods/fantasycore/music/*.ogg",
        "CC-BY-SA-3.0",
    ),
    Package(
        "megaglest-data",
        "ed4783d9fc78e201a548b266f7c30325eb16cfd58a20bf4597dd6e622f84a07e",
        f"{_GAMES}/megaglest/**/music/*.ogg",
        "CC-BY-SA-3.0",
    ),
    Package(
        "0ad-data",
        "53745ae74d05bccf6783400fa98f3932b21729ab9d2e86151aa2c331c3455178",
        "audio/music/*.ogg",
        "CC-BY-SA-3.0",
        archive=f"{_GAMES}/0ad/mods/public/public.zip",
    ),
    *(
        Package(f"{name}-data", sha256, f"{_GAMES}/**/*.ogg", _BSD)
        for name, sha256 in {
            "a7xpg": "7407c74e6160be0db3713d79176f9ba984fcd59437ac8127b60033d6bf44ba6a",
            "gunroar": "d5b0b86f4baef55534d83e77c7a66c91d4c385168fcb19e090553827e282f360",
            "mu-cade": "0486ba0460f0d1d7c9d41b44d5209610e000fc2aea8f6bb3d15de7f6f6664bd1",
            "noiz2sa": "7e38af552d946eaaf06ab2789c921972bb2bd88f202d48113faf11a30a614223",
            "parsec47": "5411a7a186cd06433db14b82b6f90e1f3e2cb345dfaf6f4d0f14dec17de8beff",
            "rrootage": "790ef886eb9705a9fc8b71069a31c4beab3beb4512603a1b87f90258879e4ccf",
            "titanion": "8a291c78bbd2b48e932439aefa219243ea72095e5a92cabb69b54af4797e2008",
            "torus-trooper": "774d4134f57dd201ae89471b2d3fd1f0b7255dc0ceabcfe0d9e6c3e6b34499aa",
            "tumiki-fighters": "74eb827adfbe9622d693c4bc1c930ad7a5846242689c34da64c97ba214995fba",
        }.items()
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


def unzipped(archive: Path, folder: Path, glob: str) -> Path:
    """The files of a zip file that a glob finds, in a folder, which is returned."""
    if not folder.is_dir():
        unpacked = folder.with_name(f"{folder.name}.tmp")
        with zipfile.ZipFile(archive) as file:
            for name in file.namelist():
                if PurePath(name).match(glob):
                    file.extract(name, unpacked)
        unpacked.rename(folder)
    return folder


def of_packages(packages: list[Package], out: Path) -> list[tuple[str, str, Path]]:
    """(package, licence, file) of every sound in the packages."""
    found: list[tuple[str, str, Path]] = []
    for package in packages:
        folder = fetch(package.name, package.sha256, out / "debs", out / package.name)
        if package.archive:
            folder = unzipped(folder / package.archive, out / f"{package.name}.zip", package.glob)
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
    both = of_packages(PACKAGES, out) + (of_corpus(args.corpus) if args.corpus else [])
    music = of_packages(MUSIC, out)
    lines = [f"{path}\n" for source, _, path in both for _ in range(REPEATED.get(source, 1))]
    (out / "sounds.txt").write_text("".join(lines), encoding="utf-8")
    more = [f"{path}\n" for _, _, path in music]
    (out / "prior.txt").write_text("".join(lines + lines + more), encoding="utf-8")
    totals: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0, 0.0])
    for use, found in (("tokenizer, prior", both), ("prior", music)):
        for source, licence, path in found:
            totals[source, licence, use][0] += 1
            totals[source, licence, use][1] += soundfile.info(path).duration / 60
    with open(out / "sources.tsv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(["source", "sounds", "minutes", "licence", "for"])
        for (source, licence, use), (sounds, minutes) in totals.items():
            table.writerow([source, sounds, f"{minutes:.1f}", licence, use])
    print(f"{len(both)} sounds in {out / 'sounds.txt'}, {len(music)} more in {out / 'prior.txt'}")


if __name__ == "__main__":
    sys.exit(exit_code(main))
