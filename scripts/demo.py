"""Photos and sounds to token files and back: what it does, what it costs, how it looks and sounds.

Runs the command line on the bundled samples, for several numbers of codebooks, and leaves token
files, decoded files, a sheet of photos, a page of sounds and a report in one folder. No network.

    python scripts/demo.py                  # everything goes to ./demo
    python scripts/demo.py --out mine --tokenizer runs/mine --photos ~/Pictures
    python scripts/demo.py --out mine --sounds ~/Music/album
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from demo_photos import run_photos
from demo_sounds import run_sounds

from vqtok.cli import exit_code
from vqtok.errors import VqtokError
from vqtok.samples import photos, sounds

MARK = "vqtok-demo"  # a file that says that the folder is ours to empty


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder (default: demo)")
    parser.add_argument("--tokenizer", default="photo", help="name or folder (default: photo)")
    parser.add_argument("--photos", help="folder of photos (default: the bundled ones)")
    parser.add_argument("--audio-tokenizer", default="audio", help="(default: audio)")
    parser.add_argument("--sounds", help="folder of sounds (default: the bundled ones)")
    options = parser.parse_args()
    start = time.perf_counter()
    pictures = str(options.photos or photos()[0].parent)
    recordings = str(options.sounds or sounds()[0].parent)
    out = options.out
    try:
        prepare(out)
        report = run_photos(pictures, options.tokenizer, out / "photos")
        report += "\n" + run_sounds(recordings, options.audio_tokenizer, out / "sounds")
    except subprocess.CalledProcessError as error:
        print(f"demo: error: {shlex.join(error.cmd)} failed ({error.returncode})", file=sys.stderr)
        return 1
    (out / "report.md").write_text(report, encoding="utf-8")
    print(f"\n{report}")
    print(
        f"{time.perf_counter() - start:.0f} s. Look at {out}/photos/sheet.png, "
        f"listen to {out}/sounds/listen.html."
    )
    return 0


def prepare(out: Path) -> None:
    """An empty folder; one that holds anything but an earlier demo is left alone."""
    if out.exists() and any(out.iterdir()) and not (out / MARK).exists():
        raise VqtokError(f"{out}: exists and is not an earlier demo; choose another with --out")
    shutil.rmtree(out, ignore_errors=True)
    for part in ("photos", "sounds"):
        (out / part).mkdir(parents=True)
    (out / MARK).touch()


if __name__ == "__main__":
    sys.exit(exit_code(main))
