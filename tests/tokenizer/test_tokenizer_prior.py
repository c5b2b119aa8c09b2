"""The prior beside a tokenizer's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vqtok.autoencoders import build_autoencoder, preset_config
from vqtok.errors import DataError, UsageError
from vqtok.tokenizer import Tokenizer, bundled_names
from vqtok.tokens import Prior


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizer = Tokenizer(build_autoencoder(preset_config("photo-tiny")), name="small")
    tokenizer.save_pretrained(tmp_path / "small")
    return tmp_path / "small"


def small_prior(tokenizer: str, sizes: tuple[int, ...]) -> Prior:
    tensors: dict[str, Any] = {"embedding.0": np.zeros((sizes[0] + 1, 1), np.uint8)}
    for q, size in enumerate(sizes):
        tensors |= {
            f"{q}.context": np.array([[0, 0, -1]], np.int32),
            f"{q}.hidden.0.weight": np.zeros((1, 1), np.int8),
            f"{q}.hidden.0.bias": np.zeros(1, np.int32),
            f"{q}.output.weight": np.zeros((size, 1), np.int8),
            f"{q}.output.bias": np.arange(size, dtype=np.int32),
            f"{q}.shifts": np.array([1, 0], np.int32),
        }
    return Prior(tensors, codebook_sizes=sizes, modality="image", tokenizer=tokenizer)


def test_it_is_found_and_saved_and_no_part_of_the_fingerprint(folder: Path, tmp_path) -> None:
    bare = Tokenizer.from_pretrained(folder)
    assert bare.prior is None
    prior = small_prior(bare.fingerprint, bare.codebook_sizes)
    prior.save(folder / "prior.safetensors")
    tokenizer = Tokenizer.from_pretrained(folder)
    assert tokenizer.prior is not None
    assert tokenizer.prior.digest == prior.digest
    assert tokenizer.fingerprint == bare.fingerprint
    tokenizer.save_pretrained(tmp_path / "copy")
    copy = Tokenizer.from_pretrained(tmp_path / "copy")
    assert copy.prior is not None
    assert copy.prior.digest == prior.digest


def test_one_that_does_not_belong_is_refused_when_it_is_needed(folder: Path) -> None:
    own = Tokenizer.from_pretrained(folder)
    for fingerprint, sizes in (("7" * 64, own.codebook_sizes), (own.fingerprint, (17,))):
        prior = small_prior(fingerprint, sizes)
        prior.save(folder / "prior.safetensors")
        tokenizer = Tokenizer.from_pretrained(folder)
        with pytest.raises(UsageError, match="trained on the codes of another tokenizer"):
            _ = tokenizer.prior
    (folder / "prior.safetensors").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"prior\.safetensors: not a safetensors file"):
        _ = Tokenizer.from_pretrained(folder).prior


@pytest.mark.parametrize("name", bundled_names())
def test_bundled_ones_belong(name: str) -> None:
    _ = Tokenizer.from_pretrained(name).prior
