from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from vqtok.media import write_image


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """The module toy.py beside this file."""
    spec = importlib.util.spec_from_file_location("toy", Path(__file__).with_name("toy.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight good images and two bad ones, in folders."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(8):
        path = folder / f"day {i % 2}" / f"phöto {i}.png"
        path.parent.mkdir(exist_ok=True)
        size = rng.integers(1, 70, 2)
        write_image(path, rng.integers(0, 256, (*size, 3), np.uint8))
    (folder / "day 0" / "bad.png").write_bytes(b"not an image")
    (folder / "day 1" / "empty.jpg").touch()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="session")
def folder_contents():
    return contents


@pytest.fixture(scope="session")
def encoded(toy: ModuleType, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The undisturbed dataset of ``photos``; not to be changed."""
    out = tmp_path_factory.mktemp("encoded") / "tokens"
    toy.encode(str(photos), str(out))
    return out


@pytest.fixture(scope="session")
def run_toy():
    """Runs toy.py as a program; returns what it prints last."""

    def run(*arguments: object) -> Any:
        script = Path(__file__).with_name("toy.py")
        command = [sys.executable, script, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run
