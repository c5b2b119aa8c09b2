"""Datasets that were coded with a prior: where it is found, and what happens without it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vqtok.errors import DataError
from vqtok.ops import bits, native
from vqtok.tokens import (
    Header,
    Prior,
    Sample,
    ShardReader,
    TokenReader,
    prior,
    verify,
    write_manifest,
    write_shard,
)
from vqtok.tokens.packing import packing_of

SIZES = (9, 20)


def small_prior(seed: int) -> Prior:
    rng = np.random.default_rng(seed)
    tensors = {}
    for q, size in enumerate(SIZES):
        tensors |= {
            f"embedding.{q}": rng.integers(0, 128, (size + 1, 4)).astype(np.uint8),
            f"{q}.context": np.array([[q, 0, -1], [0, -1, 0]], np.int32),
            f"{q}.hidden.0.weight": rng.integers(-99, 99, (6, 8)).astype(np.int8),
            f"{q}.hidden.0.bias": np.zeros(6, np.int32),
            f"{q}.output.weight": rng.integers(-99, 99, (size, 6)).astype(np.int8),
            f"{q}.output.bias": np.zeros(size, np.int32),
            f"{q}.shifts": np.array([7, 7], np.int32),
        }
    return Prior(tensors, codebook_sizes=SIZES, modality="image", tokenizer="f" * 64)


@pytest.fixture
def own() -> Prior:
    return small_prior(0)


@pytest.fixture
def coded(tmp_path: Path, own: Prior, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[Sample]]:
    """A dataset of two samples that are likely, and one that is not."""
    monkeypatch.setattr(prior, "_loaded", {})
    rng = np.random.default_rng(1)
    samples = [Sample(own.sample((6, 8), 2, rng), {"source": f"{i}"}) for i in range(2)]
    samples.append(Sample(rng.integers(0, 9, (6, 8, 2)), {"source": "2"}))
    own.save(tmp_path / "prior.safetensors")
    header = Header(
        tokenizer="f" * 64,
        tokenizer_name="toy",
        codebook_sizes=SIZES,
        packing="entropy",
        prior=own.digest,
    )
    write_manifest(tmp_path, header, [write_shard(tmp_path / "x.safetensors", samples, header)])
    return tmp_path, samples


def same(reader: TokenReader | ShardReader, samples: list[Sample]) -> None:
    for found, sample in zip(reader, samples, strict=True):
        np.testing.assert_array_equal(found.codes, sample.codes)
        assert found.meta == sample.meta


def test_codes_come_back(coded, own: Prior) -> None:
    folder, samples = coded
    same(TokenReader(folder), samples)
    same(ShardReader(folder / "x.safetensors"), samples)
    assert verify(folder) == []
    first = TokenReader(folder).read(0, 1).codes
    np.testing.assert_array_equal(first, samples[0].codes[..., :1])


def test_likely_codes_are_small_and_unlikely_ones_no_larger_than_bits(coded, own) -> None:
    folder, samples = coded
    header = replace(TokenReader(folder).header, packing="bits", prior="")
    sizes = {}
    for name, head in (("bits", header), ("entropy", TokenReader(folder).header)):
        for i, sample in enumerate(samples):
            info = write_shard(folder / "one.safetensors", [sample], head)
            sizes[name, i] = info.token_bytes
    assert sizes["entropy", 0] <= own.costs(samples[0].codes).sum() / 8 + 2.1
    assert sizes["entropy", 0] < 0.8 * sizes["bits", 0]
    assert all(sizes["entropy", i] <= sizes["bits", i] for i in range(3))


def test_fewer_codebooks_than_the_prior(coded, own: Prior) -> None:
    folder, samples = coded
    header = replace(TokenReader(folder).header, codebook_sizes=SIZES[:1])
    fewer = [Sample(sample.codes[..., :1], sample.meta) for sample in samples]
    write_shard(folder / "y.safetensors", fewer, header)
    same(ShardReader(folder / "y.safetensors"), fewer)


def test_metadata_need_no_prior_and_codes_say_what_is_missing(coded, own, monkeypatch) -> None:
    folder, samples = coded
    (folder / "prior.safetensors").unlink()
    monkeypatch.setattr(prior, "_loaded", {})
    reader = TokenReader(folder)
    assert reader.meta(1) == {"source": "1"}
    message = (
        rf"prior\.safetensors is not there; these codes need the prior {own.digest[:12]}: copy"
    )
    with pytest.raises(DataError, match=message):
        reader[0]
    (problem,) = verify(folder)
    assert "is not there; these codes need the prior" in str(problem)
    with pytest.raises(DataError, match=message):
        write_shard(folder / "z.safetensors", samples, reader.header)
    assert not (folder / "z.safetensors").exists()


def test_few_priors_are_kept(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(prior, "_loaded", {})
    monkeypatch.setattr(prior, "MAX_LOADED", 2)
    digests = []
    for seed in range(4):
        (tmp_path / str(seed)).mkdir()
        small_prior(seed).save(tmp_path / str(seed) / "prior.safetensors")
        digests.append(small_prior(seed).digest)
        found = prior.find_prior(digests[-1], tmp_path / str(seed))
        assert found.digest == digests[-1]
        assert prior.find_prior(digests[-1], tmp_path) is found
    assert list(prior._loaded) == digests[2:]


def test_another_prior_is_refused(coded, own, monkeypatch) -> None:
    folder, _ = coded
    other = small_prior(7)
    other.save(folder / "prior.safetensors")
    monkeypatch.setattr(prior, "_loaded", {})
    message = f"is another, {other.digest[:12]}; these codes need the prior {own.digest[:12]}"
    with pytest.raises(DataError, match=message):
        TokenReader(folder)[0]


def test_a_prior_that_cannot_be_read_is_told(coded, monkeypatch) -> None:
    folder, _ = coded
    (folder / "prior.safetensors").unlink()
    (folder / "prior.safetensors").mkdir()
    monkeypatch.setattr(prior, "_loaded", {})
    with pytest.raises(DataError, match=r"prior\.safetensors cannot be read; these codes need"):
        TokenReader(folder)[0]


@pytest.mark.parametrize("load", [native.load, lambda: None], ids=["native", "numpy"])
def test_codes_too_high_predict_nothing(coded, load, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first plane, packed as bits, is looked up to decode the second."""
    monkeypatch.setattr(native, "load", load)
    folder, _ = coded
    packing = packing_of(TokenReader(folder).header, folder)
    planes = bits.pack(np.full(48, 15), 4).tobytes(), b"coded"
    data = np.frombuffer(b"".join(planes), np.uint8)
    with pytest.raises(ValueError, match="code 15 in codebook 0 of size 9"):
        packing.unpack(data, (6, 8), [len(planes[0]), len(data)])


def test_damage_is_found_without_the_prior(coded, monkeypatch) -> None:
    folder, _ = coded
    data = bytearray((folder / "x.safetensors").read_bytes())
    data[data.index(b'{"source":"0"}') - 1] ^= 1
    (folder / "x.safetensors").write_bytes(data)
    (folder / "prior.safetensors").unlink()
    monkeypatch.setattr(prior, "_loaded", {})
    found = [(each.sample, each.message.partition(" (")[0]) for each in verify(folder)]
    assert [sample for sample, _ in found] == [None, None, 2]
    assert "sha256" in found[0][1]


def test_a_prior_that_comes_with_vqtok_is_found(coded, own, monkeypatch, tmp_path_factory) -> None:
    folder, samples = coded
    place = tmp_path_factory.mktemp("pretrained") / "prior.safetensors"
    (folder / "prior.safetensors").rename(place)
    monkeypatch.setattr(prior, "_loaded", {})
    monkeypatch.setattr(prior, "bundled_priors", lambda: [place])
    assert prior.is_bundled(own)
    assert not prior.is_bundled(small_prior(7))
    same(TokenReader(folder), samples)
    assert verify(folder) == []


def test_a_prior_that_came_with_vqtok_is_found(coded, monkeypatch, tmp_path_factory) -> None:
    folder, samples = coded
    root = tmp_path_factory.mktemp("vqtok")
    (root / "pretrained" / "toy").mkdir(parents=True)
    small_prior(7).save(root / "pretrained" / "toy" / "prior.safetensors")
    (folder / "prior.safetensors").rename(root / "pretrained" / "toy" / "prior-1.safetensors")
    monkeypatch.setattr(prior, "_loaded", {})
    monkeypatch.setattr(prior.resources, "files", lambda package: root)
    same(TokenReader(folder), samples)


def test_a_prior_for_other_codebooks_is_refused(coded, own) -> None:
    folder, samples = coded
    header = replace(TokenReader(folder).header, codebook_sizes=(9, 21))
    with pytest.raises(DataError, match=r"is for codebooks of \[9, 20\] codes, the dataset has"):
        write_shard(folder / "z.safetensors", samples, header)


@pytest.mark.parametrize("digest", ["f" * 63, "F" * 64, 3, None])
def test_a_digest_must_be_one(digest) -> None:
    with pytest.raises(ValueError, match="prior must be a SHA-256"):
        Header(
            tokenizer="f", tokenizer_name="n", codebook_sizes=(2,), packing="entropy", prior=digest
        )
    with pytest.raises(ValueError, match="packing 'bits' has no prior"):
        Header(
            tokenizer="f", tokenizer_name="n", codebook_sizes=(2,), packing="bits", prior="f" * 64
        )
