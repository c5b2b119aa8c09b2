"""Bundled tokenizers have versions, and datasets of earlier ones stay readable."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vqtok.autoencoders import build_autoencoder, preset_config
from vqtok.cli import main
from vqtok.errors import UsageError
from vqtok.tokenizer import Tokenizer, bundled, bundled_names, bundled_versions, find_pretrained

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from bundled import put  # type: ignore[import-not-found]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose tokenizer ``small`` was trained three times; the first is gone."""
    root = tmp_path / "pretrained"
    root.mkdir()
    (root / "versions.json").write_text("{}\n")
    for seed in range(3):
        torch.manual_seed(seed)
        model = build_autoencoder(preset_config("photo-tiny"))
        Tokenizer(model, name="small").save_pretrained(tmp_path / f"run{seed}")
        put(tmp_path / f"run{seed}", "small", root)
    shutil.rmtree(root / "small@1")
    bundled._versions.cache_clear()
    monkeypatch.setattr(bundled, "_root", lambda: root)
    return root


def fingerprints(folder: Path) -> list[str]:
    return [Tokenizer.from_pretrained(folder / f"run{seed}").fingerprint for seed in range(3)]


def test_what_is_bundled_is_listed() -> None:
    root = Path(bundled.__file__).parents[1] / "pretrained"
    folders = {path.parent for path in root.glob("*/config.json")}
    assert {each.folder for each in bundled_versions()} - {None} == folders
    for version in bundled_versions():
        if version.folder is not None:
            config = json.loads((version.folder / "config.json").read_text(encoding="utf-8"))
            assert (config["fingerprint"], len(version.fingerprint)) == (version.fingerprint, 64)
    assert {"audio", "photo", "photo-lm"} <= set(bundled_names())


def test_names(package: Path, tmp_path: Path) -> None:
    one, two, three = fingerprints(tmp_path)
    assert [each.fingerprint for each in bundled_versions()] == [one, two, three]
    assert bundled_names() == ["small"]
    for name, expected in (("small", three), ("small@3", three), ("small@2", two)):
        assert Tokenizer.from_pretrained(name).fingerprint == expected
    with pytest.raises(UsageError, match=r"small@1 \(\w{12}\) is no longer bundled.*vqtok 0\.\d"):
        find_pretrained("small@1")
    with pytest.raises(UsageError, match="no tokenizer 'small@4'"):
        find_pretrained("small@4")


def test_putting_the_same_run_again_changes_nothing(package: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in package.rglob("*") if path.is_file()}
    put(tmp_path / "run2", "small", package)
    assert {path: path.read_bytes() for path in package.rglob("*") if path.is_file()} == before


def encoded_by(tokenizer: Path, tmp_path: Path) -> Path:
    photos, tokens = tmp_path / "photos", tmp_path / "tokens"
    photos.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(photos / "one.png")
    assert main(["encode", str(photos), str(tokens), "--tokenizer", str(tokenizer)]) == 0
    return tokens


def test_tokens_of_an_earlier_version_find_it(package: Path, tmp_path: Path) -> None:
    tokens = encoded_by(tmp_path / "run1", tmp_path)
    assert main(["decode", str(tokens), str(tmp_path / "out")]) == 0
    again = ["decode", str(tokens), str(tmp_path / "same"), "--tokenizer", "small@2"]
    assert main(again) == 0
    assert (tmp_path / "out/one.png").read_bytes() == (tmp_path / "same/one.png").read_bytes()


def test_tokens_of_a_version_that_is_gone_are_refused(
    package: Path, tmp_path: Path, capsys
) -> None:
    tokens = encoded_by(tmp_path / "run0", tmp_path)
    assert main(["decode", str(tokens), str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "small@1" in message
    assert "no longer bundled; it came with vqtok" in message
    assert not (tmp_path / "out").exists()
    kept = ["decode", str(tokens), str(tmp_path / "out"), "--tokenizer", str(tmp_path / "run0")]
    assert main(kept) == 0


def test_tokens_of_a_version_that_is_not_known_are_refused(
    package: Path, tmp_path: Path, capsys
) -> None:
    torch.manual_seed(9)
    Tokenizer(build_autoencoder(preset_config("photo-tiny")), name="small").save_pretrained(
        tmp_path / "newer"
    )
    tokens = encoded_by(tmp_path / "newer", tmp_path)
    assert main(["decode", str(tokens), str(tmp_path / "out")]) == 2
    assert "none of the versions that this vqtok knows (the latest is small@3" in (
        capsys.readouterr().err
    )
