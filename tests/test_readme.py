"""The README's code, run as a reader would run it: in order, in a folder with photos and sounds."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vqtok.quantizers import QUANTIZERS
from vqtok.samples import photos, sounds

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    (folder / "photos").mkdir()
    for photo in photos()[:2]:
        shutil.copy(photo, folder / "photos")
    shutil.copy(photos()[0], folder / "photos" / "cat.jpg")
    shutil.copytree(sounds()[0].parent, folder / "sounds")
    return folder


def test_the_readme_has_code():
    assert [language for language, _ in BLOCKS].count("sh") >= 2
    assert [language for language, _ in BLOCKS].count("python") >= 3


def test_the_quantizers_are_counted():
    assert f"There are {len(QUANTIZERS)} of them" in README.read_text()


@pytest.mark.timeout(1800)  # minutes on a busy machine
def test_readme_code_runs(folder):
    python = "\n".join(code for language, code in BLOCKS if language == "python")
    for language, code in BLOCKS:
        if language == "sh":
            for line in code.splitlines():
                run_command(line, folder)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", python],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def run_command(line, folder):
    words = shlex.split(line, comments=True)
    if not words:
        return
    assert words[0] == "vqtok", f"not a vqtok command: {line}"
    if words[1] == "train":
        words += ["--steps", "2", "--batch-size", "1"]
        if words[2].startswith(("photo", "audio")):
            words += ["--crop", "32" if words[2].startswith("photo") else "8000"]
    if words[1] == "bench":
        words += ["--quick"]
    if words[1] == "train-prior":
        words += ["--steps", "2", "--batch-size", "16"]
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "default"},
    )
    assert done.returncode == 0, f"{line}\n{done.stderr}"
