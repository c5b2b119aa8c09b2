"""Every family through token files: imported and encoded here, decoded in another process."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vqtok.cli import main
from vqtok.importers import FAMILIES, Checkpoint
from vqtok.media import read_audio, read_image, write_audio, write_image
from vqtok.tokenizer import Tokenizer
from vqtok.tokens import TokenReader


def beside(name: str) -> ModuleType:
    """The module of tests ``name`` in this folder, for the models that it makes."""
    full = f"importers_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]


def image(name: str) -> Checkpoint:
    tests = beside("test_vqgan")
    made: Checkpoint = tests.RIVALS[name](tests.photo(96, 128).float() / 127.5 - 1).checkpoint
    return made


def lean(magvit: bool) -> Checkpoint:
    return Checkpoint(beside("test_lean_families").Oracle(magvit).tensors)


def sound(name: str) -> Checkpoint:
    made: Checkpoint = beside("test_sound_families").RIVALS[name]().checkpoint
    return made


MODELS: dict[str, tuple[str, str, Callable[[], Checkpoint]]] = {
    "amused": ("vqgan", "image", lambda: image("amused")),
    "llamagen": ("vqgan", "image", lambda: image("llamagen")),
    "ibq": ("vqgan", "image", lambda: image("ibq")),
    "var": ("var", "image", lambda: image("var")),
    "emu3": ("emu3", "image", lambda: image("emu3")),
    "maskgit": ("maskgit", "image", lambda: lean(magvit=False)),
    "magvit": ("maskgit", "image", lambda: lean(magvit=True)),
    "encodec": ("encodec", "sound", lambda: sound("encodec")),
    "encodec-stereo": ("encodec", "sound", lambda: beside("test_encodec_stereo").checkpoint()),
    "dac": ("dac", "sound", lambda: sound("dac")),
    "snac": ("snac", "sound", lambda: sound("snac-attention")),
    "mimi": ("mimi", "sound", lambda: sound("mimi")),
}
DECODE = """
import json, sys, torch
from vqtok.cli import main
torch.set_num_threads(int(sys.argv[1]))  # on which torch's rounding depends
for arguments in json.load(sys.stdin):
    if main(arguments):
        sys.exit(f"failed: {arguments}")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NAME/{tokenizer,tokens,here,there}: imported, encoded, decoded in this process and another.

    Beside ``image.png`` and ``sound.wav``, which were encoded.
    """
    root = tmp_path_factory.mktemp("families")
    pixels = beside("test_vqgan").photo(61, 83)[0].permute(1, 2, 0).numpy()
    write_image(root / "image.png", np.ascontiguousarray(pixels))
    wave = beside("test_encodec_stereo").speech(9001).numpy()
    write_audio(root / "sound.wav", wave, 8000)
    commands = []
    for name, (family, kind, make) in MODELS.items():
        torch.manual_seed(0)
        with torch.no_grad():
            checkpoint = make()
        published, out = root / name / "published", root / name
        published.mkdir(parents=True)
        tensors = {key: value.clone() for key, value in checkpoint.tensors.items()}
        save_file(tensors, published / "model.safetensors")
        if checkpoint.config:
            (published / "config.json").write_text(json.dumps(checkpoint.config, default=str))
        assert main(["import", str(published), f"{out}/tokenizer", "--name", name]) == 0
        again = Tokenizer.from_pretrained(out / "tokenizer")
        assert again.training["imported"]["family"] == family
        source = str(root / ("image.png" if kind == "image" else "sound.wav"))
        assert main(["encode", source, f"{out}/tokens", "--tokenizer", f"{out}/tokenizer"]) == 0
        decode = ["decode", f"{out}/tokens", f"{out}/here", "--tokenizer", f"{out}/tokenizer"]
        assert main(decode) == 0
        commands.append([*decode[:2], f"{out}/there", *decode[3:]])
    subprocess.run(
        [sys.executable, "-c", DECODE, str(torch.get_num_threads())],
        input=json.dumps(commands),
        text=True,
        check=True,
        capture_output=True,
    )
    return root


def test_every_family_is_here() -> None:
    assert {family for family, _, _ in MODELS.values()} == FAMILIES.keys()


@pytest.mark.parametrize("name", MODELS)
def test_another_process_decodes_the_same(folder: Path, name: str) -> None:
    kind = MODELS[name][1]
    file = "image.png" if kind == "image" else "sound.wav"
    tokenizer = Tokenizer.from_pretrained(folder / name / "tokenizer")
    tokens = TokenReader(folder / name / "tokens")
    assert tokens.header.tokenizer == tokenizer.fingerprint
    codes = torch.from_numpy(tokens[0].codes.astype(np.int64))[None]
    if kind == "image":
        pixels = torch.from_numpy(read_image(folder / file).pixels.copy()).permute(2, 0, 1)[None]
        assert torch.equal(tokenizer.encode(pixels), codes)
        expected = tokenizer.decode(codes, size=(61, 83))[0].permute(1, 2, 0)
        decoded = read_image(folder / name / "there" / file).pixels
        assert np.array_equal(decoded, expected.numpy())
    else:
        wave = torch.from_numpy(read_audio(folder / file).samples)[None]
        assert torch.equal(tokenizer.encode(wave, 8000), codes)
        decoded = read_audio(folder / name / "there" / file).samples
        expected = tokenizer.decode(codes, 9001, 8000)[0].clamp(-1, 1)
        assert decoded.shape == expected.shape
        assert np.abs(decoded - expected.numpy()).max() < 1 / 32_000  # 16 bits
    here, there = (folder / name / side / file for side in ("here", "there"))
    assert here.read_bytes() == there.read_bytes()


@pytest.mark.parametrize("name", MODELS)
def test_another_tokenizer_is_refused(folder: Path, name: str, tmp_path: Path, capsys) -> None:
    names = [other for other in MODELS if MODELS[other][1] == MODELS[name][1]]
    other = names[names.index(name) - 1]
    command = ["decode", str(folder / name / "tokens"), str(tmp_path / "out"), "--tokenizer"]
    assert main([*command, str(folder / other / "tokenizer")]) == 2
    made_by = Tokenizer.from_pretrained(folder / name / "tokenizer").fingerprint
    assert f"was made by tokenizer {name!r} (fingerprint {made_by[:12]}), not by {other!r}" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()
