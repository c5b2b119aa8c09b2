"""Reading checkpoints: what is read, what is refused, and the verb around it."""

from __future__ import annotations

import argparse
import json
import os
from contextlib import suppress
from pathlib import Path

import diffusers
import huggingface_hub
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from vqtok import importers
from vqtok.cli import main
from vqtok.errors import DataError, UsageError
from vqtok.importers import hub, read_checkpoint
from vqtok.media import read_image, write_image
from vqtok.tokenizer import Tokenizer
from vqtok.tokens import TokenReader

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.bias": torch.ones(2)}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as diffusers saves a model."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("published") / "vq-small"
    model = diffusers.VQModel(
        block_out_channels=(32,), num_vq_embeddings=16, latent_channels=4, vq_embed_dim=4
    )
    model.quantize.embedding.weight.data.normal_()
    model.save_pretrained(folder)
    return folder


def assert_read(path: Path) -> None:
    checkpoint = read_checkpoint(path)
    assert list(checkpoint.tensors) == list(TENSORS)
    assert all(torch.equal(checkpoint.tensors[name], TENSORS[name]) for name in TENSORS)


def test_safetensors_and_pickles_of_tensors_are_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "a.safetensors")
    assert_read(tmp_path / "a.safetensors")
    for number, content in enumerate(
        [
            TENSORS,
            {"state_dict": TENSORS, "epoch": 3},
            {"model": TENSORS, "optimizer": {"lr": 1.0}, "args": argparse.Namespace(lr=1.0)},
            {"ema": {"module": TENSORS}},
        ]
    ):
        path = tmp_path / f"{number}.pt"
        torch.save(content, path)
        assert_read(path)


def test_settings_inside_a_checkpoint_are_its_config(tmp_path: Path) -> None:
    kwargs = {"encoder_dim": 8}
    torch.save({"state_dict": TENSORS, "metadata": {"kwargs": kwargs}}, tmp_path / "dac.pth")
    assert read_checkpoint(tmp_path / "dac.pth").config == kwargs


def test_a_folder_is_its_weights_and_its_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"norm_num_groups": 4}')
    save_file({"a.weight": TENSORS["a.weight"]}, tmp_path / "part-1.safetensors")
    save_file({"b.bias": TENSORS["b.bias"]}, tmp_path / "part-2.safetensors")
    index = {"weight_map": {"a.weight": "part-1.safetensors", "b.bias": "part-2.safetensors"}}
    with pytest.raises(UsageError, match="several files"):
        read_checkpoint(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_read(tmp_path)
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.config == {"norm_num_groups": 4}
    assert list(checkpoint.files) == ["part-1.safetensors", "part-2.safetensors"]
    index["weight_map"]["b.bias"] = "../elsewhere.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match="outside its folder"):
        read_checkpoint(tmp_path)


class Attack:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.proof),)


def test_code_in_a_pickle_never_runs(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    torch.save({"state_dict": TENSORS, "extra": Attack(proof)}, tmp_path / "evil.pt")
    with pytest.raises(DataError, match=r"would run code.*mkdir.*convert it once yourself"):
        read_checkpoint(tmp_path / "evil.pt")
    assert not proof.exists()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "content", [b"\x80\x04\x95" + bytes(40), b"\xfa\x00" * 20, b"hi\n", b"\x80\x02"]
)
def test_bytes_that_torch_never_writes_are_not_taken_for_code(
    content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(DataError, match=r"damaged, or was not written by torch\.save"):
        read_checkpoint(tmp_path / "a.pt")


def test_what_torch_guesses_about_a_truncated_file_is_left_out(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:-400])
    with pytest.raises(DataError, match="is not a readable checkpoint") as found:
        read_checkpoint(tmp_path / "a.pt")
    assert "internal" not in str(found.value)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), suffix=st.sampled_from([".pt", ".safetensors"]))
def test_damaged_files_are_refused(
    data: st.DataObject, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / f"good{suffix}"
    if suffix == ".pt":
        torch.save(TENSORS, path)
    else:
        save_file(TENSORS, path)
    good = path.read_bytes()
    cut = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good[:cut])
    if data.draw(st.booleans()):
        bad = bytearray(good)
        bad[cut] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(bad))
    with suppress(DataError):  # and nothing else; a flipped bit of a value cannot be seen here
        read_checkpoint(path)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_checkpoint(tmp_path / "nothing.pt")
    with pytest.raises(UsageError, match="holds no weights"):
        read_checkpoint(tmp_path)
    (tmp_path / "weights.onnx").write_bytes(b"x")
    with pytest.raises(UsageError, match="weights are read from"):
        read_checkpoint(tmp_path / "weights.onnx")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(DataError, match="no tensors"):
        read_checkpoint(tmp_path / "empty.pt")
    save_file(TENSORS, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match=r"no family that vqtok knows \(.*vqgan.*a\.weight"):
        importers.load(tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="unknown family 'vq'"):
        importers.load(tmp_path / "other.safetensors", "vq")


def test_import_encode_decode(published: Path, tmp_path: Path, capsys) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (21, 30, 3), np.uint8)
    write_image(tmp_path / "image.png", pixels)
    out = tmp_path / "imported"
    assert main(["import", str(published), str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["family"], facts["codebook_sizes"]) == ("vqgan", [16])
    assert main(["import", str(published), str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["import", str(published), str(out), "--overwrite"]) == 0

    tokens, back = tmp_path / "tokens", tmp_path / "back"
    image = str(tmp_path / "image.png")
    assert main(["encode", image, str(tokens), "--tokenizer", str(out)]) == 0
    assert main(["verify", str(tokens)]) == 0
    assert main(["decode", str(tokens), str(back), "--tokenizer", str(out)]) == 0
    assert read_image(str(back / "image.png")).pixels.shape == pixels.shape
    assert TokenReader(tokens)[0].codes.shape == (21, 30, 1)
    assert Tokenizer.from_pretrained(out).training["imported"]["family"] == "vqgan"


def test_a_name_on_the_hub(published: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    asked = {}

    def download(repository: str, **options: object) -> str:
        asked.update(options, repository=repository)
        return str(published)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert main(["import", "hub:owner/vq-small@v2", str(tmp_path / "out")]) == 0
    assert (asked["repository"], asked["revision"]) == ("owner/vq-small", "v2")
    assert "diffusion_pytorch_model.safetensors" in asked["allow_patterns"]
    with pytest.raises(UsageError, match="owner/name"):
        hub.fetch("hub:nobody")

    def unreachable(*_args: object, **_options: object) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    capsys.readouterr()
    assert main(["import", "hub:owner/other", str(tmp_path / "no")]) == 1
    assert "no network" in capsys.readouterr().err


@pytest.mark.parametrize("wrapped", ["module.", "_orig_mod.", "state_dict.", "model.module."])
def test_a_prefix_of_all_names_is_no_matter(published: Path, tmp_path: Path, wrapped: str) -> None:
    tensors = read_checkpoint(published).tensors
    save_file(
        {wrapped + name: value for name, value in tensors.items()}, tmp_path / "a.safetensors"
    )
    config = (published / "config.json").read_text()
    (tmp_path / "config.json").write_text(config)
    plain = importers.load(published)
    for family in ("auto", "vqgan"):
        tokenizer = importers.load(tmp_path / "a.safetensors", family)
        assert tokenizer.fingerprint == plain.fingerprint


def test_tensors_in_a_dict_of_any_name_are_found(tmp_path: Path) -> None:
    torch.save({"vae": TENSORS, "step": 3, "lr": torch.ones(1)}, tmp_path / "one.pt")
    assert_read(tmp_path / "one.pt")
    torch.save({"student": TENSORS, "teacher": TENSORS}, tmp_path / "two.pt")
    with pytest.raises(DataError, match=r"several dicts of tensors \(student, teacher\)"):
        read_checkpoint(tmp_path / "two.pt")
    state = {"state": {0: {"exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}}}
    torch.save({"nets": {"vae": TENSORS, "step": 3}, "adam": state}, tmp_path / "deep.ckpt")
    assert_read(tmp_path / "deep.ckpt")
    itself: dict[str, object] = {"step": 3}
    itself["self"] = {"again": itself}
    torch.save(itself, tmp_path / "itself.pt")
    with pytest.raises(DataError, match="holds no tensors"):
        read_checkpoint(tmp_path / "itself.pt")
    torch.save([TENSORS], tmp_path / "list.pt")
    with pytest.raises(DataError, match="holds a list, expected a dict of tensors"):
        read_checkpoint(tmp_path / "list.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("<!DOCTYPE html><title>404 Not Found</title>", "is text, not weights.*DOCTYPE"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:12\n", "a pointer of Git LFS"),
    ],
)
def test_what_was_downloaded_instead_is_told(
    tmp_path: Path, content: str, said: str, suffix: str
) -> None:
    (tmp_path / f"model{suffix}").write_text(content)
    with pytest.raises(DataError, match=said):
        read_checkpoint(tmp_path / f"model{suffix}")


def test_wrong_tensors_and_settings_are_named(published: Path, tmp_path: Path) -> None:
    tensors = dict(read_checkpoint(published).tensors)
    file = tmp_path / "model.safetensors"

    def said(changed: dict[str, torch.Tensor]) -> str:
        save_file(changed, file)
        with pytest.raises(DataError) as found:
            importers.load(tmp_path)
        return str(found.value)

    name = "quantize.embedding.weight"
    assert f"'{name}' has shape [16, 5], expected [16, 4]" in said(
        {**tensors, name: torch.ones(16, 5)}
    )
    first = "decoder.conv_in.weight"  # which the decoder's sizes are read from
    assert f"'{first}' has shape [3, 3], expected" in said({**tensors, first: torch.ones(3, 3)})
    assert f"'{name}' has shape [0, 4], nothing is in it" in said(
        {**tensors, name: torch.ones(0, 4)}
    )
    assert "'surprise.weight' is unexpected" in said({**tensors, "surprise.weight": torch.ones(2)})
    missing = {name: value for name, value in tensors.items() if name != "decoder.conv_out.bias"}
    assert "which belongs beside 'decoder.conv_out.weight'" in said(missing)
    (tmp_path / "config.json").write_text('{"norm_num_groups": "many"}')
    assert "norm_num_groups = 'many', expected a positive whole number" in said(tensors)


@pytest.mark.parametrize("family", importers.FAMILIES)
def test_a_family_of_choice_is_no_excuse(published: Path, tmp_path: Path, family: str) -> None:
    """Whatever it is called, a checkpoint of another family is refused in words."""
    if family != "vqgan":
        with pytest.raises(UsageError, match=f"is of family vqgan .*, not {family}"):
            importers.load(published, family)
    tensors = dict(read_checkpoint(published).tensors)
    del tensors["quant_conv.weight"]  # so that it is of none
    for known in (tensors, TENSORS):
        save_file(known, tmp_path / "a.safetensors")
        with pytest.raises(DataError, match=rf"a\.safetensors, as {family}: \w+"):
            importers.load(tmp_path / "a.safetensors", family)


def test_half_precision_is_read(published: Path, tmp_path: Path) -> None:
    tensors = read_checkpoint(published).tensors
    save_file(
        {name: value.half() for name, value in tensors.items()}, tmp_path / "half.safetensors"
    )
    tokenizer = importers.load(tmp_path / "half.safetensors")
    assert {value.dtype for value in tokenizer.autoencoder.parameters()} == {torch.float32}
    row = tensors["quantize.embedding.weight"].half().float()
    assert torch.equal(tokenizer.autoencoder.quantizer.embeddings, row)


def test_an_option_of_another_family_is_wrong_usage(published: Path) -> None:
    with pytest.raises(UsageError, match="has no choice of chunk"):
        importers.load(published, chunk=3)
