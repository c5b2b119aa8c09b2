from __future__ import annotations

import numpy as np
import pytest
import torch

from vqtok.autoencoders import build_autoencoder, preset_config
from vqtok.cli import main
from vqtok.media import write_image
from vqtok.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small untrained tokenizer, saved."""
    torch.manual_seed(0)
    model = build_autoencoder(preset_config("photo-tiny"))
    for parameter in model.parameters():
        if parameter.ndim == 4:
            torch.nn.init.normal_(parameter, std=0.1)
    folder = tmp_path_factory.mktemp("tokenizer")
    Tokenizer(model, name="small").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four images of several sizes, and a file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i, size in enumerate([(1, 1), (40, 64), (33, 17), (9, 120)]):
        write_image(folder / f"{i}.png", rng.integers(0, 256, (*size, 3), np.uint8))
    (folder / "notes.md").touch()
    return str(folder)


@pytest.fixture(scope="session")
def tokens(tokenizer_folder: str, photos: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The token dataset of ``photos`` in shards of two; not to be changed."""
    out = str(tmp_path_factory.mktemp("encoded") / "tokens")
    arguments = ["encode", photos, out, "--tokenizer", tokenizer_folder, "--shard-size", "2"]
    assert main(arguments) == 0
    return out
