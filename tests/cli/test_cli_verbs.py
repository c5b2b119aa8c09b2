from __future__ import annotations

import errno
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from vqtok.cli import main
from vqtok.cli.common import say_each
from vqtok.media import read_image
from vqtok.ops.native import native_available
from vqtok.tokenizer import Tokenizer
from vqtok.tokens import Header, TokenReader, write_manifest


def test_there_and_back(tokens: str, tokenizer_folder: str, photos: str, tmp_path, capsys) -> None:
    """Files decoded by the command line are what the tokenizer makes of the photos in memory."""
    assert main(["decode", tokens, str(tmp_path / "out"), "--tokenizer", tokenizer_folder]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/out: 4 images decoded\n"
    tokenizer = Tokenizer.from_pretrained(tokenizer_folder)
    assert sorted(os.listdir(tmp_path / "out")) == [f"{i}.png" for i in range(4)]
    for i in range(4):
        images = torch.from_numpy(read_image(f"{photos}/{i}.png").pixels).permute(2, 0, 1)[None]
        expected = tokenizer.decode(tokenizer.encode(images), tuple(images.shape[2:]))
        found = read_image(tmp_path / f"out/{i}.png").pixels
        np.testing.assert_array_equal(found, expected[0].permute(1, 2, 0).numpy())


def test_encode_says_what_it_did(photos: str, tokenizer_folder, tmp_path, capsys) -> None:
    arguments = ["encode", photos, str(tmp_path / "out"), "--tokenizer", tokenizer_folder]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    size = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert captured.out == f"{tmp_path}/out is complete: 4 samples in 1 shard, {size:,} bytes\n"
    assert captured.err == "vqtok: passed over 1 file (1 .md)\n"
    assert main([*arguments, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["already_done"] is True
    assert (facts["samples"], facts["errors"], facts["shards"], facts["bytes"]) == (4, 0, 1, size)


def test_no_input_can_be_read(tokenizer_folder: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "x.png").touch()
    arguments = ["encode", str(tmp_path / "x.png"), str(tmp_path / "out")]
    assert main([*arguments, "--tokenizer", tokenizer_folder]) == 1
    text = capsys.readouterr().out
    assert text == f"{tmp_path}/out holds no samples: not one of 1 input could be read\n"


def test_options_of_encode_reach_the_dataset(photos, tokenizer_folder, tmp_path, capsys) -> None:
    arguments = ["encode", photos, str(tmp_path / "out"), "--tokenizer", tokenizer_folder]
    options = ["--num-codebooks", "1", "--pack", "plain", "--shard-size", "3", "--workers", "1"]
    assert main(arguments + options) == 0
    reader = TokenReader(tmp_path / "out")
    assert (reader.header.codebook_sizes, reader.header.packing) == ((64,), "plain")
    assert reader.manifest is not None
    assert [shard.samples for shard in reader.manifest.shards] == [3, 1]
    assert main([*arguments, "--num-codebooks", "2"]) == 2
    assert "codebook_sizes [64, 64] instead of [64]" in capsys.readouterr().err


def test_entropy_says_which_model_it_uses(photos, tokenizer_folder, tmp_path, capsys) -> None:
    out = str(tmp_path / "out")
    arguments = ["encode", photos, out, "--tokenizer", tokenizer_folder, "--pack", "entropy"]
    assert main(arguments) == 0
    assert "has no prior: its codes are coded with the adaptive model" in capsys.readouterr().err
    assert main(["inspect", out]) == 0
    assert "\n  packing     entropy, adaptive model\n" in capsys.readouterr().out
    assert main(["inspect", out, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["packing"], facts["prior"]) == ("entropy", "")
    reader = TokenReader(out)
    assert facts["bpp_of_codes"] == pytest.approx(reader.token_bytes * 8 / facts["pixels"])
    assert reader.token_bytes == sum(TokenReader(path).token_bytes for path in Path(out).glob("s*"))
    assert main(["verify", out]) == 0


def test_bad_inputs_fail_the_command_but_not_the_dataset(
    photos, tokenizer_folder, tmp_path, capsys
) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    for i in range(12):
        (tmp_path / f"photos/bad{i:02}.jpg").write_bytes(b"junk")
    (tmp_path / "photos/bad00.jpg").rename(tmp_path / "photos/bad\x1b[31m.jpg")
    out = str(tmp_path / "out")
    arguments = ["encode", str(tmp_path / "photos"), out, "--tokenizer", tokenizer_folder]
    for _ in range(2):
        assert main(arguments) == 1
        captured = capsys.readouterr()
        assert "4 samples in 1 shard" in captured.out
        assert captured.err.count("not encoded: bad") == 10
        assert "2 more; 12 inputs could not be encoded, see " in captured.err
        assert "\x1b" not in captured.err
    assert main(["verify", out]) == 0
    assert main(["inspect", out]) == 0
    assert "4 (image) in 1 shard, 12 inputs failed" in capsys.readouterr().out


def test_verify(tokens: str, tmp_path: Path, capsys) -> None:
    assert main(["verify", tokens]) == 0
    assert capsys.readouterr().out == f"{tokens}: 4 samples, no problems\n"
    assert main(["verify", f"{tokens}/shard-00001.safetensors"]) == 0
    shutil.copytree(tokens, tmp_path / "bad")
    damage(tmp_path / "bad/shard-00001.safetensors")
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "bad")]) == 1
    assert "shard-00001.safetensors: sample 1: " in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "bad"), "--json"]) == 1
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert {"shard-00001.safetensors"} == {problem["file"] for problem in problems}
    assert [problem["sample"] for problem in problems] == [None, 1]


def damage(path: Path) -> None:
    """Flip a bit in the last sample's metadata."""
    data = bytearray(path.read_bytes())
    data[-4] ^= 1
    path.write_bytes(data)


def test_decode_loses_only_what_is_damaged(tokens, tokenizer_folder, tmp_path, capsys) -> None:
    shutil.copytree(tokens, tmp_path / "bad")
    damage(tmp_path / "bad/shard-00001.safetensors")
    arguments = ["decode", str(tmp_path / "bad"), str(tmp_path / "out")]
    assert main([*arguments, "--tokenizer", tokenizer_folder]) == 1
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path}/out: 3 images decoded, 1 lost\n"
    assert "not decoded: shard-00001.safetensors: sample 1: " in captured.err
    assert len(os.listdir(tmp_path / "out")) == 3


@pytest.mark.parametrize("verb", ["decode", "inspect"])
def test_a_lost_shard_is_one_line(verb, tokens, tokenizer_folder, tmp_path, capsys) -> None:
    shutil.copytree(tokens, tmp_path / "bad")
    (tmp_path / "bad/shard-00001.safetensors").unlink()
    arguments = [verb, str(tmp_path / "bad")]
    if verb == "decode":
        arguments += [str(tmp_path / "out"), "--tokenizer", tokenizer_folder]
    assert main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "shard-00001.safetensors: the file is missing" in line
    assert line.endswith(" (2 samples)")


def test_long_lists_are_cut(capsys) -> None:
    say_each("lost", [f"sample {i}" for i in range(12)])
    lines = capsys.readouterr().err.splitlines()
    assert (len(lines), lines[9:]) == (11, ["vqtok: lost: sample 9", "vqtok: lost: 2 more"])


def test_decode_options(tokens: str, tokenizer_folder: str, tmp_path: Path, capsys) -> None:
    arguments = ["decode", tokens, str(tmp_path / "out"), "--tokenizer", tokenizer_folder]
    assert main([*arguments, "--format", "jpg", "--quality", "50", "--num-codebooks", "1"]) == 0
    assert sorted(os.listdir(tmp_path / "out")) == [f"{i}.jpg" for i in range(4)]
    capsys.readouterr()
    assert main(arguments) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main([*arguments, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["decoded"] == 4
    assert main([*arguments, "--overwrite", "--quality", "50"]) == 2


def test_a_file_does_not_choose_the_tokenizer(tokens: str, tmp_path: Path, capsys) -> None:
    assert main(["decode", tokens, str(tmp_path / "out")]) == 2
    assert "'small', which is not bundled; name its folder" in capsys.readouterr().err


def test_inspect_a_dataset(tokens: str, capsys) -> None:
    assert main(["inspect", tokens, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    reader = TokenReader(tokens)
    codes = np.concatenate([sample.codes.reshape(-1, 2) for sample in reader])
    pixels = 1 * 1 + 40 * 64 + 33 * 17 + 9 * 120
    assert (facts["samples"], facts["codes"], facts["pixels"]) == (4, len(codes), pixels)
    assert facts["bpp_of_codes"] == pytest.approx(len(codes) * 12 / pixels)
    size = sum(path.stat().st_size for path in Path(tokens).iterdir())
    assert facts["bpp"] == pytest.approx(size * 8 / pixels)
    for q, book in enumerate(facts["codebooks"]):
        frequencies = np.bincount(codes[:, q]) / len(codes)
        entropy = -sum(f * math.log2(f) for f in frequencies if f > 0)
        assert book["usage"] == len(set(codes[:, q].tolist())) / 64
        assert book["entropy"] == pytest.approx(entropy)
        assert book["perplexity"] == pytest.approx(2**entropy)
    assert main(["inspect", tokens]) == 0
    text = capsys.readouterr().out
    assert f"{facts['codebooks'][1]['perplexity']:.1f}" in text
    assert f"{facts['bpp']:.4f} bits per pixel on disk" in text
    assert main(["inspect", f"{tokens}/shard-00000.safetensors"]) == 0
    assert "2 (image) in 1 shard" in capsys.readouterr().out


def test_inspect_damage(tokens: str, tmp_path: Path, capsys) -> None:
    shutil.copytree(tokens, tmp_path / "bad")
    damage(tmp_path / "bad/shard-00001.safetensors")
    assert main(["inspect", str(tmp_path / "bad")]) == 1
    captured = capsys.readouterr()
    assert "4 (image) in 2 shards, 1 damaged" in captured.out
    assert "damaged: shard-00001.safetensors: sample 1: " in captured.err


def test_names_cannot_write_lines_of_their_own(tmp_path: Path, capsys) -> None:
    name = "x\nvqtok: all is well\x1b[2K"
    header = Header(tokenizer="f", tokenizer_name=name, codebook_sizes=(4,))
    write_manifest(tmp_path, header, [])
    assert main(["inspect", str(tmp_path)]) == 0
    assert (
        "  tokenizer   x\\nvqtok: all is well\\x1b[2K (f)" in capsys.readouterr().out.splitlines()
    )


def test_inspect_a_tokenizer(tokenizer_folder: str, capsys) -> None:
    tokenizer = Tokenizer.from_pretrained(tokenizer_folder)
    assert main(["inspect", tokenizer_folder, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["fingerprint"] == tokenizer.fingerprint
    assert facts["codebook_sizes"] == [64, 64]
    assert facts["bpp"] == [6 / 64, 12 / 64]
    weights = sum(value.numel() for value in tokenizer.autoencoder.parameters())
    assert facts["parameters"] == weights
    assert main(["inspect", tokenizer_folder]) == 0
    text = capsys.readouterr().out
    assert "1: 0.0938, 2: 0.1875 (by number of codebooks)" in text
    assert f"{weights:,}" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encode", "/nowhere/a", "OUT"], "/nowhere/a: no such file or folder"),
        (["encode", "EMPTY", "OUT"], "no image files here"),
        (["encode", "PHOTOS", "OUT", "--tokenizer", "/nowhere"], "no tokenizer '/nowhere'"),
        (["encode", "PHOTOS", "OUT", "--num-codebooks", "9"], "num_codebooks is 9, the tokenizer"),
        (["encode", "PHOTOS", "OUT", "--device", "abacus"], "--device abacus: "),
        (["encode", "PHOTOS", "OUT", "--device", "meta"], "--device meta: choose cpu, cuda"),
        (["decode", "TOKENS", "OUT", "--device", "cuda:99"], "--device cuda:99: "),
        (["encode", "PHOTOS", "PHOTOS"], "holds other files"),
        (["decode", "/nowhere", "OUT"], "/nowhere: no such file or folder"),
        (["decode", "TOKENS", "OUT", "--num-codebooks", "9"], "num_codebooks is 9, the tokens"),
        (
            ["decode", "TOKENS", "OUT", "--format", "jpg", "--quality", "101"],
            "must be 1 to 100, not 101",
        ),
        (["decode", "TOKENS", "OUT", "--quality", "90"], "png is lossless and takes none"),
        (["decode", "EMPTY", "OUT"], "neither a token dataset (no manifest.json) nor"),
        (["verify", "EMPTY"], "neither a token dataset (no manifest.json) nor one of its shards"),
        (["verify", "TOKENIZER"], "nor one of its shards: it is a tokenizer"),
        (["inspect", "EMPTY"], "neither a token dataset (no manifest.json) nor a tokenizer (no c"),
        (["verify", "/nowhere"], "/nowhere: no such file or folder"),
        (["inspect", "/nowhere"], "/nowhere: no such file or folder, nor one of the bundled"),
        (["inspect", "/nowhere", "--page", "x.html"], "/nowhere: no such file or folder, nor"),
    ],
)
def test_wrong_requests_exit_with_2(
    photos, tokens, tokenizer_folder, tmp_path, capsys, arguments, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"OUT": str(tmp_path / "out"), "EMPTY": str(tmp_path / "empty")}
    places |= {"PHOTOS": photos, "TOKENS": tokens, "TOKENIZER": tokenizer_folder}
    arguments = [places.get(argument, argument) for argument in arguments]
    if arguments[0] in ("encode", "decode") and "--tokenizer" not in arguments:
        arguments += ["--tokenizer", tokenizer_folder]
    before = sorted(os.listdir(photos))
    assert main(arguments) == 2
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if "error" in line]
    assert len(errors) == 1
    assert errors[0].startswith("vqtok: error: ")
    assert message in errors[0]
    assert not (tmp_path / "out").exists()
    assert sorted(os.listdir(photos)) == before


def test_an_unknown_instruction_set(photos, tokenizer_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("VQTOK_ISA", "bogus")
    arguments = ["encode", photos, str(tmp_path / "out"), "--tokenizer", tokenizer_folder]
    if native_available():
        assert main(arguments) == 2
        assert capsys.readouterr().err.startswith("vqtok: error: VQTOK_ISA='bogus': this CPU")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["decode", "verify", "inspect"])
def test_an_unfinished_dataset(verb: str, tmp_path: Path, tokenizer_folder, capsys) -> None:
    (tmp_path / "tokens/.vqtok").mkdir(parents=True)
    arguments = [verb, str(tmp_path / "tokens")]
    if verb == "decode":
        arguments += [str(tmp_path / "out"), "--tokenizer", tokenizer_folder]
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert "has not finished (run the same command again)" in captured.out + captured.err


def test_an_output_that_cannot_be_made(photos, tokenizer_folder, tmp_path, capsys) -> None:
    (tmp_path / "file").touch()
    arguments = ["encode", photos, str(tmp_path / "file/out"), "--tokenizer", tokenizer_folder]
    assert main(arguments) == 1
    assert f"vqtok: error: {tmp_path}/file/out/.vqtok: Not a directory" in capsys.readouterr().err


def test_no_space(photos: str, tokenizer_folder: str, tmp_path, capsys, monkeypatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    arguments = ["encode", photos, str(tmp_path / "out"), "--tokenizer", tokenizer_folder]
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        assert main(arguments) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"vqtok: error: {tmp_path}/out/.vqtok/plan.json: No space left on device; "
        "free some space, then run the same command again"
    )
    assert main(arguments) == 0


def test_other_exceptions_are_not_hidden(tokens: str, monkeypatch) -> None:
    def broken(*arguments):
        raise RuntimeError("a bug")

    monkeypatch.setattr("vqtok.tokens.verify", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["verify", tokens])
