"""scripts/get_corpus.py: its tables, and the photos that lie inside other files."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import debian  # type: ignore[import-not-found]
import get_corpus  # type: ignore[import-not-found]
import get_sounds  # type: ignore[import-not-found]

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not there")


def encoded(size: tuple[int, int], form: str, seed: int) -> tuple[bytes, Image.Image]:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, form, quality=90)
    return buffer.getvalue(), image


def test_tables() -> None:
    packages = get_corpus.table("packages.tsv")
    photos = get_corpus.table("photos.tsv")
    assert all(re.fullmatch(r"[0-9a-f]{64}", each["sha256"]) for each in packages)
    assert {photo["package"] for photo in photos} == {each["package"] for each in packages}
    assert len({photo["file"] for photo in photos}) == len(photos) == 510
    assert all(photo["licence"] and Path(photo["file"]).name == photo["file"] for photo in photos)


def test_photos_inside_a_file_are_found_in_order(tmp_path: Path) -> None:
    made = [encoded((40, 30), form, seed) for seed, form in enumerate(["WEBP", "JPEG", "WEBP"])]
    (tmp_path / "all.rcc").write_bytes(
        b"qres" + b"\0between\xff\xd8".join(data for data, _ in made)
    )
    for number, (_, image) in enumerate(made):
        data = get_corpus.content(tmp_path, f"all.rcc#{number}")
        found = Image.open(io.BytesIO(data)).convert("RGB")
        assert found.size == image.size
        assert np.abs(np.asarray(found, float) - np.asarray(image, float)).mean() < 8


@pytest.mark.parametrize(
    ("form", "size", "kept", "expected"),
    [
        ("JPEG", (64, 48), True, (64, 48)),
        ("WEBP", (64, 48), False, (64, 48)),
        ("JPEG", (4096, 20), False, (2048, 10)),
    ],
)
def test_photos_are_kept_or_reduced(
    tmp_path: Path, form: str, size: tuple[int, int], kept: bool, expected: tuple[int, int]
) -> None:
    data, image = encoded(size, form, 3)
    get_corpus.write_photo(data, tmp_path / "photo.jpg")
    written = (tmp_path / "photo.jpg").read_bytes()
    assert (written == data) == kept
    result = Image.open(tmp_path / "photo.jpg")
    assert (result.format, result.size) == ("JPEG", expected)
    wanted = image.resize(expected, Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(result, float) - np.asarray(wanted, float)).mean() < 8


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """A package's SHA-256, and a file; apt-get downloads it, or what the file holds by then."""
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    control = "Package: some\nVersion: 1.0\nArchitecture: all\nMaintainer: a <a@b.c>\n"
    (root / "DEBIAN" / "control").write_text(f"{control}Description: a test\n")
    (root / "usr").mkdir()
    (root / "usr" / "photo").write_text("content")
    mirror = tmp_path / "mirror.deb"
    subprocess.run(["dpkg-deb", "--build", root, mirror], check=True, capture_output=True)
    tools = tmp_path / "tools"
    tools.mkdir()
    apt = tools / "apt-get"
    apt.write_text(f"#!/bin/sh\n[ $2 = some=1.0 ] && cp {mirror} some_1.0_all.deb\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return hashlib.sha256(mirror.read_bytes()).hexdigest(), mirror


@needs_dpkg
def test_a_package_is_fetched_even_if_that_was_interrupted(package, tmp_path: Path) -> None:
    sha256, mirror = package
    debs, folder = tmp_path / "debs", tmp_path / "packages" / "some"
    debs.mkdir()
    (debs / "some_1.0_all.deb").write_bytes(mirror.read_bytes()[:100])
    (tmp_path / "packages" / "some.tmp").mkdir(parents=True)
    assert debian.fetch("some", sha256, debs, folder, "1.0") == folder
    assert (folder / "usr" / "photo").read_text() == "content"
    mirror.unlink()
    assert debian.fetch("some", sha256, debs, folder, "1.0") == folder


@needs_dpkg
def test_another_version_or_none_is_refused(package, tmp_path: Path) -> None:
    sha256, mirror = package
    with pytest.raises(SystemExit, match=r"cannot download some=2\.0: run apt-get update"):
        debian.fetch("some", sha256, tmp_path, tmp_path / "unpacked", "2.0")
    mirror.write_bytes(b"another")
    with pytest.raises(SystemExit, match=f"has not the SHA-256 {sha256}: another version"):
        debian.fetch("some", sha256, tmp_path, tmp_path / "unpacked", "1.0")
    assert not (tmp_path / "unpacked").exists()


def test_a_machine_without_apt_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"some is a Debian package.* no apt-get here"):
        debian.fetch("some", "00", tmp_path, tmp_path / "unpacked")


def test_sounds_inside_a_zip_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "public.zip", "w") as file:
        for name in ("audio/music/a.ogg", "audio/voice/b.ogg", "audio/music/c.txt"):
            file.writestr(name, name)
    folder = tmp_path / "out" / "game.zip"
    for _ in range(2):
        assert get_sounds.unzipped(tmp_path / "public.zip", folder, "audio/music/*.ogg") == folder
        assert [path.name for path in folder.rglob("*.*")] == ["a.ogg"]


@pytest.mark.parametrize("script", ["get_corpus.py", "get_sounds.py", "select_photos.py"])
def test_help_is_no_folder(script: str, tmp_path: Path) -> None:
    """It was, and hundreds of megabytes were downloaded into it."""
    path = Path(get_corpus.__file__).with_name(script)
    done = subprocess.run(
        [sys.executable, str(path), "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"python scripts/{script}" in done.stdout
    assert not list(tmp_path.iterdir())


def test_large_photos_are_reduced_once(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    (corpus / "train").mkdir(parents=True)
    for name, size in (("small.jpg", (60, 40)), ("large.jpg", (90, 200))):
        Image.new("RGB", size, (200, 30, 40)).save(corpus / "train" / name)
    rows = ["file\tlicence", "small.jpg\tCC0-1.0", "large.jpg\tCC0-1.0", "no.jpg\tCC0-1.0"]
    (corpus / "manifest.tsv").write_text("\n".join(rows))
    script = Path(get_corpus.__file__).with_name("select_photos.py")
    command = [sys.executable, str(script), str(corpus), "--longest", "100"]
    for _ in range(2):
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        copy = tmp_path / "corpus-100" / "large.jpg"
        assert listed == [str(corpus / "train" / "small.jpg"), str(copy)]
        with Image.open(copy) as photo:
            assert photo.size == (45, 100)
            assert (
                max(abs(a - b) for a, b in zip(photo.getpixel((9, 9)), (200, 30, 40), strict=True))
                < 4
            )
        made = copy.stat().st_mtime_ns
    assert copy.stat().st_mtime_ns == made
    assert sorted(path.name for path in (tmp_path / "corpus-100").iterdir()) == ["large.jpg"]
