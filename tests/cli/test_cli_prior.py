from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from vqtok.cli import main
from vqtok.cli.sample import tempered
from vqtok.tokenizer import Tokenizer
from vqtok.tokens import TokenReader, read_manifest
from vqtok.tokens.prior import Prior

FAST = ["--steps", "3", "--batch-size", "64", "--max-bytes", "400000", "--threads", "1"]


@pytest.fixture(scope="session")
def with_prior(tokenizer_folder: str, photos: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A copy of the small tokenizer with a prior; not to be changed."""
    out = str(tmp_path_factory.mktemp("prior") / "mine")
    assert main(["train-prior", tokenizer_folder, "--data", photos, "--out", out, *FAST]) == 0
    return out


def test_a_prior_lies_beside_the_weights(with_prior: str, tokenizer_folder: str) -> None:
    prior = Prior.load(Path(with_prior) / "prior.safetensors")
    tokenizer = Tokenizer.from_pretrained(with_prior)
    assert prior.tokenizer == tokenizer.fingerprint
    assert tokenizer.fingerprint == Tokenizer.from_pretrained(tokenizer_folder).fingerprint
    assert tokenizer.prior is not None
    assert tokenizer.prior.digest == prior.digest
    assert prior.training["samples"] + prior.training["validation_samples"] == 4
    assert not (Path(tokenizer_folder) / "prior.safetensors").exists()


def test_tokens_teach_the_same_as_their_files(
    with_prior: str,
    tokenizer_folder: str,
    tokens: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(tokenizer_folder, mine)
    arguments = ["train-prior", str(mine), "--data", tokens, *FAST]
    assert main([*arguments, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["digest"] == Prior.load(Path(with_prior) / "prior.safetensors").digest
    assert facts["bytes"] == (mine / "prior.safetensors").stat().st_size
    assert len(facts["bits_per_code"]["integer"]) == len(facts["bits_per_code"]["order0"])

    assert main(arguments) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
    assert main([*arguments, "--overwrite", "--validation", tokens]) == 0
    shown = capsys.readouterr().out
    assert "bits per code of 4 images it did not learn from" in shown
    assert "learned from" in shown


def test_a_prior_goes_on_from_the_one_before(
    with_prior: str, tokens: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["train-prior", with_prior, "--data", tokens, "--out", str(out), "--from-prior"]
    assert main([*arguments, *FAST, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    before = Prior.load(Path(with_prior) / "prior.safetensors")
    assert (facts["start"], facts["learning_rate"]) == (before.digest, 1e-3)
    assert Prior.load(out / "prior.safetensors").digest == facts["digest"] != before.digest


def test_a_malformed_prior_is_replaced_by_the_new_one(
    with_prior: str, tokens: str, tmp_path: Path
) -> None:
    mine, out = tmp_path / "mine", tmp_path / "out"
    shutil.copytree(with_prior, mine)
    (mine / "prior.safetensors").write_bytes(b"nonsense")
    arguments = ["train-prior", str(mine), "--data", tokens, *FAST]
    assert main([*arguments, "--out", str(out)]) == 0
    assert Tokenizer.from_pretrained(out).prior is not None
    assert main([*arguments, "--overwrite"]) == 0
    assert Tokenizer.from_pretrained(mine).prior is not None


def test_what_train_prior_refuses(
    tokenizer_folder: str, photos: str, tokens: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    few = str(tmp_path / "few")
    assert (
        main(["encode", photos, few, "--tokenizer", tokenizer_folder, "--num-codebooks", "1"]) == 0
    )
    out = ["--out", str(tmp_path / "out")]
    for arguments, message in [
        (["photo", "--data", photos], "say with --out"),
        (["photo", "--data", tokens, *out], "was made by tokenizer 'small'"),
        ([tokenizer_folder, "--data", few, *out], "codebooks"),
        ([tokenizer_folder, "--data", photos, *out, "--max-bytes", "9"], "fits into 9 bytes"),
        ([tokenizer_folder, "--data", photos, "--out", __file__], "is a file"),
        (["photo", "--data", photos, "--out", tokenizer_folder], "holds another tokenizer"),
        ([tokenizer_folder, "--data", photos, *out, "--seed", "-1"], "seed must be in 0..1"),
        ([tokenizer_folder, "--data", photos, *out, "--from-prior"], "no prior to go on from"),
    ]:
        capsys.readouterr()
        assert main(["train-prior", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_validation_is_looked_for_first(tokenizer_folder: str, tmp_path: Path, capsys) -> None:
    """Before the data are encoded, or read for crops, which takes long."""
    nowhere = ["--data", str(tmp_path / "data"), "--validation", str(tmp_path / "judge")]
    for command in (
        ["train-prior", tokenizer_folder, *nowhere],
        ["train", "photo-tiny", *nowhere, "--out", str(tmp_path / "out")],
    ):
        assert main(command) == 2
        assert f"{tmp_path / 'judge'}: no such file" in capsys.readouterr().err


def test_draws_are_pictures_and_repeat(with_prior: str, tmp_path: Path) -> None:
    arguments = ["sample", with_prior, "--size", "20x36", "--seed", "3", "--number", "2"]
    for folder in ("a", "b"):
        assert main([*arguments[:2], str(tmp_path / folder), *arguments[2:]]) == 0
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["small-3.png", "small-4.png"]
    pixels = [np.array(Image.open(tmp_path / "a" / name)) for name in files]
    assert pixels[0].shape == (20, 36, 3)
    assert (pixels[0] != pixels[1]).any()
    for name, first in zip(files, pixels, strict=True):
        assert (np.array(Image.open(tmp_path / "b" / name)) == first).all()


def test_colder_draws_are_likelier(with_prior: str) -> None:
    prior = Tokenizer.from_pretrained(with_prior).prior
    assert prior is not None
    rng = np.random.default_rng(0)
    tensors = dict(prior.tensors)
    for name in [name for name in tensors if name.endswith("output.weight")]:
        tensors[name] = rng.integers(-120, 120, tensors[name].shape).astype(np.int8)
    form = {key: getattr(prior, key) for key in ("codebook_sizes", "modality", "tokenizer")}
    peaked = Prior(tensors, **form, training={})
    codes = peaked.sample((4, 5), 1, rng)
    costs = {t: tempered(peaked, t).costs(codes) for t in (0.5, 1.0, 2.0)}
    assert tempered(peaked, 1.0) is peaked
    # bits are -log2 p: at half the temperature, differences between codes double
    drawn = [tempered(peaked, t).sample((12, 12), 1, np.random.default_rng(1)) for t in (0.5, 2.0)]
    means = [peaked.costs(each).mean() for each in drawn]
    assert means[0] < peaked.costs(codes).mean() < means[1]
    assert not np.allclose(costs[0.5], costs[2.0])


def test_what_sample_refuses(
    with_prior: str, tokenizer_folder: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for arguments, message in [
        ([tokenizer_folder], "vqtok train-prior"),
        ([with_prior, "--size", "20"], "HEIGHTxWIDTH"),
        ([with_prior, "--size", "99999x99999"], "150,000,000 pixels"),
        ([with_prior, "--seconds", "2"], "is for sounds"),
        ([with_prior, "--temperature", "0"], "from 0.1 to 10"),
        ([with_prior, "--num-codebooks", "99"], "--num-codebooks"),
        ([with_prior, "--seed", "-1"], "must not be negative"),
    ]:
        name, *rest = arguments
        assert main(["sample", name, str(tmp_path / "out"), *rest]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_sounds_are_drawn_too(make_audio_model, tmp_path: Path) -> None:
    tokenizer = Tokenizer(make_audio_model(), name="tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    rng = np.random.default_rng(0)
    (tmp_path / "sounds").mkdir()
    for index in range(3):
        noise = rng.normal(scale=0.1, size=(4000, 1 + index % 2))
        soundfile.write(tmp_path / "sounds" / f"{index}.wav", noise, 24_000)
    tiny, sounds, out = (str(tmp_path / name) for name in ("tiny", "sounds", "out"))
    assert main(["train-prior", tiny, "--data", sounds, *FAST]) == 0
    assert main(["sample", tiny, out, "--seconds", "0.1", "--num-codebooks", "2"]) == 0
    drawn, rate = soundfile.read(tmp_path / "out" / "tiny-0.wav")
    assert rate == 24_000
    assert abs(len(drawn) - 2400) <= 64
    assert main(["sample", tiny, out, "--size", "8x8"]) == 2


def test_a_rate_weight_makes_smaller_files(
    with_prior: str, photos: str, tokens: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def encode(name: str, *more: str) -> int:
        return main(["encode", photos, str(tmp_path / name), "--tokenizer", with_prior, *more])

    weigh = ["--pack", "entropy", "--rate-weight", "5"]
    assert encode("small", *weigh) == 0
    assert encode("nearest", "--pack", "entropy") == 0
    assert main(["verify", str(tmp_path / "small")]) == 0
    assert TokenReader(tmp_path / "small").header.rate_weight == 5
    size, nearest = (
        sum(shard.token_bytes for shard in read_manifest(tmp_path / name).shards)
        for name in ("small", "nearest")
    )
    assert size < nearest
    small, back = str(tmp_path / "small"), str(tmp_path / "back")
    assert main(["decode", small, back, "--tokenizer", with_prior]) == 0
    capsys.readouterr()
    assert encode("small", "--pack", "entropy") == 2
    assert "rate_weight 0.0 instead of 5.0" in capsys.readouterr().err
    assert encode("bits", "--rate-weight", "5") == 2
    assert "of the packing 'entropy'" in capsys.readouterr().err
