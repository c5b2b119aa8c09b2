"""``vqtok train VARIANT``."""

import html
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from vqtok.autoencoders import Autoencoder
from vqtok.autoencoders.variants import VARIANTS
from vqtok.cli import main, train


@pytest.fixture
def table(tmp_path):
    generator = np.random.default_rng(0)
    factors = generator.normal(size=(120, 2))
    data = factors @ generator.normal(size=(2, 5)) + 0.1 * generator.normal(size=(120, 5))
    path = tmp_path / "table.csv"
    np.savetxt(path, data, delimiter=",", header="a,b,c,d,e", comments="")
    return path


def test_a_table_to_scores(table, tmp_path, capsys):
    out = tmp_path / "run"
    command = ["train", "denoising", "--data", str(table), "--out", str(out), "--steps", "40"]
    command += ["--set", "code_size=2", "--set", "hidden=[8]", "--contamination", "0.1", "--json"]
    assert main(command) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [score["name"] for score in facts["scores"]][1:] == ["PCA, 2 components", "mean"]
    model = Autoencoder.from_pretrained(out)
    assert model.fingerprint == facts["fingerprint"]
    assert model.threshold == facts["threshold"]
    assert model.encoder.config["hidden"] == [8]
    data = torch.from_numpy(np.loadtxt(table, delimiter=",", skiprows=1)).float()
    assert 0 < int((model.score_samples(data) < model.threshold).sum()) < 60
    assert main(command) == 0  # finished: nothing is trained again
    assert json.loads(capsys.readouterr().out)["fingerprint"] == facts["fingerprint"]


def test_small_images(tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (40, 9, 10), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    command = ["train", "vqvae", "--data", str(tmp_path / "images.npz"), "--steps", "5"]
    command += ["--out", str(tmp_path / "run"), "--set", "stack=conv", "--set", "hidden=[4]"]
    assert main([*command, "--set", "codebook-size=16", "--set", "noise=0.1"]) == 0
    assert "unexplained variance" in capsys.readouterr().out
    model = Autoencoder.from_pretrained(tmp_path / "run")
    assert model.transform(torch.from_numpy(images[:2, None])).shape == (2, 5, 5, 1)


def test_inspect_reads_data_as_train_does(tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", first=images, second=images[:7])
    (tmp_path / "folder").mkdir()
    for place, image in enumerate(images):
        Image.fromarray(image).resize((12, 10)).save(tmp_path / "folder" / f"{place}.png")
    run = str(tmp_path / "run")
    command = ["train", "vanilla", "--data", str(tmp_path / "folder"), "--size", "8"]
    assert main([*command, "--out", run, "--steps", "2"]) == 0
    inspect = ["inspect", run, "--json", "--data"]
    capsys.readouterr()
    for data, options, samples in (
        ("folder", ["--size", "8"], 30),
        ("images.npz", ["--key", "second"], 7),
    ):
        assert main([*inspect, str(tmp_path / data), *options]) == 0
        assert json.loads(capsys.readouterr().out)["samples"] == samples
    assert main([*inspect, str(tmp_path / "images.npz"), "--size", "8"]) == 2
    assert "--size resizes images" in capsys.readouterr().err
    assert main(["inspect", run, "--size", "8"]) == 2
    assert "give --data" in capsys.readouterr().err
    assert main(["inspect", "photo", "--key", "X"]) == 2
    assert "are for autoencoders" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("preset", "name", "message"),
    [
        ("vanilla", "book.txt", "texts are for the seq2seq variants"),
        ("seq2seq-rnn", ".", "is a folder; sequences are in a .txt"),
    ],
)
def test_data_of_another_kind(tmp_path, capsys, preset, name, message):
    (tmp_path / "book.txt").write_text("It was the best of times.\n")
    command = ["train", preset, "--data", str(tmp_path / name), "--out", str(tmp_path / "run")]
    assert main(command) == 2
    assert message in capsys.readouterr().err


def test_a_series(tmp_path, capsys):
    series = np.sin(np.arange(300) / 5)[:, None]
    np.save(tmp_path / "series.npy", series)
    command = ["train", "seq2seq-rnn", "--data", str(tmp_path / "series.npy"), "--steps", "3"]
    command += ["--out", str(tmp_path / "run"), "--set", "length=20", "--batch-size", "4"]
    assert main(command) == 0
    model = Autoencoder.from_pretrained(tmp_path / "run")
    assert model.reconstruct(torch.from_numpy(series[None, :20]).float()).shape == (1, 20, 1)


def test_lines_of_a_text(tmp_path, capsys):
    (tmp_path / "words.txt").write_text("aha\n\nbird\nfig\n" * 10)
    command = ["train", "seq2seq-transformer", "--data", str(tmp_path / "words.txt"), "--json"]
    command += ["--out", str(tmp_path / "run"), "--set", "lines=true", "--set", "hidden=[8]"]
    assert main([*command, "--set", "bottleneck=vq", "--held-out", "0", "--steps", "3"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [facts["lengths"][0]["shortest"], facts["lengths"][-1]["longest"]] == [4, 5]
    assert facts["baselines"].keys() == {"symbols alone", "after the one before"}
    page = tmp_path / "page.html"
    command = ["inspect", str(tmp_path / "run"), "--data", str(tmp_path / "words.txt"), "--json"]
    assert main([*command, "--page", str(page)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["by_length"][-1]["longest"] <= 5
    lines = facts["Texts, and what comes back"]
    assert len(lines) == 8
    pieces = [re.match(r"'([a-z\\]{1,8})' [=!] ['\"]", line) for line in lines]
    assert all(pieces), lines
    assert all(piece[1] in repr("aha\n\nbird\nfig\n" * 2) for piece in pieces)
    written = html.unescape(page.read_text())
    assert "by_length" in written
    assert all(line in written for line in lines + facts["Samples"])
    assert "<img" not in written
    command = ["inspect", str(tmp_path / "run"), "--data", str(tmp_path / "words.txt")]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert all(line in shown for line in lines)
    assert re.search(r"4-\d +\d+ .*%\n", shown)
    assert main([*command, "--page", str(tmp_path / "page.png")]) == 2
    assert "has no pictures; end the name in .html" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "depth=3"], "has no setting 'depth'"),
        (["--set", "depth"], "write NAME=VALUE"),
        (["--set", "code_size=-1"], "code_size must be a whole number of at least 1, not -1"),
        (["--set", "likelihood=poisson"], "unknown likelihood"),
        (["--init", "photo"], "--init belongs to tokenizers"),
        (["--adversary"], "--adversary belongs to tokenizers, not to vanilla"),
        (["--no-autocast"], "--no-autocast belongs to tokenizers"),
        (["--size", "7"], "--size resizes images; "),
        (["--key", "X"], "--key chooses an array of an .npz"),
        (["--contamination", "2"], "contamination must be in"),
        (["--held-out", "1.5"], "held_out must be in"),
        (["--set", "stack=conv"], "samples (C, H, W)"),
    ],
)
def test_wrong_usage(table, tmp_path, capsys, options, message):
    command = ["train", "vanilla", "--data", str(table), "--out", str(tmp_path / "run")]
    assert main([*command, "--steps", "2", *options]) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_preset_names_all(table, tmp_path, capsys):
    assert main(["train", "vea", "--data", str(table), "--out", str(tmp_path / "run")]) == 2
    message = capsys.readouterr().err
    assert "photo-tiny" in message
    assert "beta-vae" in message


def test_the_help_names_every_variant():
    for name in VARIANTS:
        assert f" {name}" in train.EXAMPLES
