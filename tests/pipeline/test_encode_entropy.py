"""Encoding with the packing "entropy", with a prior and without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vqtok.errors import UsageError
from vqtok.media import list_sources
from vqtok.pipeline import Share, encode_dataset, make_plan
from vqtok.tokens import Prior, TokenReader, prior, verify


def toy_prior(seed: int) -> Prior:
    rng = np.random.default_rng(seed)
    tensors: dict[str, Any] = {}
    for q, size in enumerate((16, 50)):
        tensors |= {
            f"embedding.{q}": rng.integers(0, 128, (size + 1, 4)).astype(np.uint8),
            f"{q}.context": np.array([[q, 0, -1], [0, -1, 0]], np.int32),
            f"{q}.hidden.0.weight": rng.integers(-9, 9, (6, 8)).astype(np.int8),
            f"{q}.hidden.0.bias": np.zeros(6, np.int32),
            f"{q}.output.weight": rng.integers(-9, 9, (size, 6)).astype(np.int8),
            f"{q}.output.bias": np.zeros(size, np.int32),
            f"{q}.shifts": np.array([5, 5], np.int32),
        }
    return Prior(tensors, codebook_sizes=(16, 50), modality="image", tokenizer="70" * 32)


@pytest.fixture
def tokenizer(toy, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(prior, "_loaded", {})
    return toy.ToyTokenizer()


def encode(tokenizer: Any, photos: Path, out: Path, **options: Any) -> None:
    plan = make_plan(
        list_sources(str(photos)), tokenizer, packing="entropy", shard_size=3, **options
    )
    encode_dataset(plan, tokenizer, out)


def same_codes(found: Path, wanted: Path, num_codebooks: int) -> None:
    for sample, other in zip(TokenReader(found), TokenReader(wanted), strict=True):
        np.testing.assert_array_equal(sample.codes, other.codes[..., :num_codebooks])
        assert sample.meta == other.meta


def test_without_a_prior(tokenizer, photos, encoded, tmp_path: Path) -> None:
    encode(tokenizer, photos, tmp_path / "out")
    reader = TokenReader(tmp_path / "out")
    assert (reader.header.packing, reader.header.prior) == ("entropy", "")
    assert not (tmp_path / "out/prior.safetensors").exists()
    assert verify(tmp_path / "out") == []
    same_codes(tmp_path / "out", encoded, 2)


@pytest.mark.parametrize("num_codebooks", [1, 2])
def test_the_prior_is_in_the_dataset(
    tokenizer, photos, encoded, tmp_path, folder_contents, num_codebooks: int
) -> None:
    tokenizer.prior = toy_prior(0)
    for name in ("one", "two"):
        encode(tokenizer, photos, tmp_path / name, num_codebooks=num_codebooks)
    one = folder_contents(tmp_path / "one")
    assert one == folder_contents(tmp_path / "two")
    assert one["prior.safetensors"] == tokenizer.prior.to_bytes()
    assert TokenReader(tmp_path / "one").header.prior == tokenizer.prior.digest
    assert verify(tmp_path / "one") == []
    same_codes(tmp_path / "one", encoded, num_codebooks)
    encode(tokenizer, photos, tmp_path / "one", num_codebooks=num_codebooks)  # is done


def test_a_bundled_prior_is_not_copied(tokenizer, photos, tmp_path, monkeypatch) -> None:
    tokenizer.prior = toy_prior(0)
    tokenizer.prior.save(tmp_path / "prior.safetensors")
    monkeypatch.setattr(prior, "bundled_priors", lambda: [tmp_path / "prior.safetensors"])
    encode(tokenizer, photos, tmp_path / "out")
    assert not (tmp_path / "out/prior.safetensors").exists()
    assert verify(tmp_path / "out") == []


def test_another_prior_does_not_go_on_with_a_run(tokenizer, photos, tmp_path: Path) -> None:
    tokenizer.prior = toy_prior(0)
    encode(tokenizer, photos, tmp_path / "out")
    plan = make_plan(list_sources(str(photos)), tokenizer, packing="entropy", shard_size=3)
    tokenizer.prior = toy_prior(1)
    with pytest.raises(UsageError, match=r"differs: prior '\w{64}' instead of '\w{64}'"):
        encode(tokenizer, photos, tmp_path / "out")
    with pytest.raises(UsageError, match=f"for the prior {plan.header.prior[:12]}, the tokenizer"):
        encode_dataset(plan, tokenizer, tmp_path / "new")


@pytest.mark.parametrize("share", ["1/2", "all"])
def test_what_an_older_vqtok_began_stays_in_its_format_version(
    tokenizer, photos, tmp_path, folder_contents, share: str
) -> None:
    tokenizer.prior = toy_prior(0)
    new = make_plan(list_sources(str(photos)), tokenizer, packing="entropy", shard_size=3)
    old = replace(new, header=replace(new.header, format_version=1))
    out = tmp_path / "out"
    encode_dataset(old, tokenizer, tmp_path / "old")
    encode_dataset(old, tokenizer, out, share=Share.parse(share))
    with pytest.raises(UsageError, match=r"that differs: rate_weight 1.0 instead of 0.0"):
        encode(tokenizer, photos, out, rate_weight=1.0)
    assert encode_dataset(new, tokenizer, out).already_done == (share == "all")
    assert folder_contents(out) == folder_contents(tmp_path / "old")
    assert TokenReader(out).header.format_version == 1
    assert verify(out) == []


def test_other_packings_take_no_prior(tokenizer, photos, encoded, tmp_path, folder_contents):
    tokenizer.prior = toy_prior(0)
    plan = make_plan(list_sources(str(photos)), tokenizer, shard_size=3)
    encode_dataset(plan, tokenizer, tmp_path / "out")
    assert folder_contents(tmp_path / "out") == folder_contents(encoded)


def test_the_rate_weight_is_part_of_the_plan(tokenizer, photos, tmp_path: Path) -> None:
    tokenizer.prior = toy_prior(0)
    encode(tokenizer, photos, tmp_path / "out", rate_weight=0.5)
    assert TokenReader(tmp_path / "out").header.rate_weight == 0.5
    assert verify(tmp_path / "out") == []
    encode(tokenizer, photos, tmp_path / "out", rate_weight=0.5)  # is done
    for weight in (0.25, 0.0):
        with pytest.raises(UsageError, match=f"differs: rate_weight {weight} instead of 0.5"):
            encode(tokenizer, photos, tmp_path / "out", rate_weight=weight)
    encode(tokenizer, photos, tmp_path / "nearest")
    assert b"rate_weight" not in (tmp_path / "nearest/manifest.json").read_bytes()
    with pytest.raises(UsageError, match=r"differs: rate_weight 0.5 instead of 0.0"):
        encode(tokenizer, photos, tmp_path / "nearest", rate_weight=0.5)


def test_a_rate_weight_needs_the_packing_and_a_prior(tokenizer, photos, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"by a prior, and the tokenizer 'toy' has none"):
        encode(tokenizer, photos, tmp_path / "out", rate_weight=1.0)
    tokenizer.prior = toy_prior(0)
    with pytest.raises(UsageError, match=r"of the packing 'entropy', 'bits' takes as many bits"):
        make_plan(list_sources(str(photos)), tokenizer, rate_weight=1.0)
    for weight in (-1.0, 101.0, float("nan")):
        with pytest.raises(UsageError, match=r"rate_weight must be in \[0, 100\]"):
            encode(tokenizer, photos, tmp_path / "out", rate_weight=weight)
    assert not (tmp_path / "out").exists()
