"""A whole bench through the command line, on tiny images."""

from __future__ import annotations

import csv
import io
import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import soundfile
import torch
from PIL import Image

from vqtok.bench.codecs.pictures import PillowFormat
from vqtok.bench.metrics.frechet import INCEPTION
from vqtok.bench.results import Results
from vqtok.cli import main
from vqtok.media import read_image
from vqtok.samples import photos
from vqtok.tokenizer import ImageTokenizer

SIZES = {"a.png": (40, 56), "b.png": (1, 1), "c.png": (64, 64)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    pixels = read_image(photos()[0]).pixels
    for i, (name, (height, width)) in enumerate(SIZES.items()):
        piece = pixels[50 * i : 50 * i + height, 60 * i : 60 * i + width]
        Image.fromarray(piece).save(folder / name)
    return folder


def bench(folder: Path, out: Path, *more: str) -> int:
    options = ["--tokenizers", "none", "--baselines", "jpeg,webp", "--metrics", "psnr,ssim"]
    return main(["bench", str(folder), "--out", str(out), *options, *more])


def without_times(results: Results) -> str:
    value = results.to_json()
    for codec in value["codecs"]:
        for point in codec["points"]:
            for name in ("encode_seconds", "decode_seconds", "peak_memory_bytes"):
                point.pop(name)
    value["machine"] = None
    return json.dumps(value)


@pytest.fixture(scope="module")
def report(folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("bench") / "report"
    assert bench(folder, out, "--published", "kodak") == 0
    return out


def test_means_are_those_of_an_independent_computation(folder, report) -> None:
    results = Results.load(report / "results.json")
    assert [sample.name for sample in results.samples] == list(SIZES)
    assert [(sample.height, sample.width) for sample in results.samples] == list(SIZES.values())
    (point,) = [p for p in results.codecs[0].points if p.setting == "quality 12"]
    rates, values = [], []
    for i, name in enumerate(SIZES):
        original = read_image(folder / name).pixels
        path = folder.parent / f"{name}.jpg"
        Image.fromarray(original).save(path, quality=12, progressive=True, optimize=True)
        assert point.bytes[i] == path.stat().st_size
        rates.append(path.stat().st_size * 8 / original.shape[0] / original.shape[1])
        error = np.square(original.astype(float) - read_image(path).pixels).mean()
        values.append(10 * math.log10(255**2 / error))
        assert point.quality["psnr"][i] == pytest.approx(values[i])
    assert point.rate == pytest.approx(np.mean(rates))
    assert point.mean["psnr"] == pytest.approx(np.mean(values))
    assert point.deviation["psnr"] == pytest.approx(np.std(values, ddof=1) / math.sqrt(3))
    # SSIM has no value for a single pixel: its means, and the rates with them, are over two.
    metric = next(metric for metric in results.metrics if metric.name == "ssim")
    assert metric.samples == 2
    assert point.rate_of("ssim") == pytest.approx(np.mean([rates[0], rates[2]]))
    assert any("means over 2 of 3 samples" in note for note in results.notes)


def test_what_is_written(report, capsys) -> None:
    assert (report / "index.html").stat().st_size > 1000
    results = Results.load(report / "results.json")
    rows = list(csv.DictReader((report / "results.csv").read_text().splitlines()))
    assert len(rows) == sum(len(codec.points) for codec in results.codecs)
    assert [codec.kind for codec in results.codecs] == ["baseline"] * 2 + ["external"] * 4
    assert {each.codec for each in results.bd} == {"jpeg", "webp"}
    for each in results.bd:
        if each.codec == "jpeg":
            assert (each.rate_percent, each.quality) == (0.0, 0.0)


def test_a_second_run_needs_resume_and_gives_the_same(folder, report, capsys, monkeypatch) -> None:
    before = without_times(Results.load(report / "results.json"))
    assert bench(folder, report) == 2
    assert "--resume goes on with it" in capsys.readouterr().err
    units = sorted((report / "work").iterdir())
    units[0].unlink()  # as if it had been killed
    units[1].write_bytes(units[1].read_bytes()[:50])
    kept = {path: path.stat().st_mtime_ns for path in units[2:]}
    command = ["--published", "kodak", "--resume", "--processes", "2", "--json"]
    assert bench(folder, report, *command) == 0
    assert without_times(Results.load(report / "results.json")) == before
    assert {path: path.stat().st_mtime_ns for path in units[2:]} == kept
    found = json.loads(capsys.readouterr().out)
    assert found["common"] == 3
    assert found["codecs"][0]["name"] == "jpeg"


def test_a_codec_that_fails_on_some(folder, tmp_path, capsys, monkeypatch) -> None:
    """The failure is named, and no mean of anybody has that sample; damaged files are named too."""
    encode = PillowFormat.encode

    def failing(self, value, original, sample):
        if self.name == "webp" and original.shape[0] == 64:
            raise RuntimeError("no such\nluck")
        return encode(self, value, original, sample)

    monkeypatch.setattr(PillowFormat, "encode", failing)
    data = tmp_path / "data"
    data.mkdir()
    for name in SIZES:
        (data / name).write_bytes((folder / name).read_bytes())
    (data / "d.png").write_bytes(b"no image")
    assert bench(data, tmp_path / "out") == 1
    errors = capsys.readouterr().err
    assert "failed: webp, c.png: no such luck" in errors
    assert "not read: d.png" in errors
    results = Results.load(tmp_path / "out" / "results.json")
    (failure,) = results.failed
    assert (failure.codec, failure.setting, failure.sample) == ("webp", "all", "c.png")
    assert results.common == (0, 1)
    for codec in results.codecs:
        for point in codec.points:
            assert point.rate == pytest.approx(np.mean(point.rates[:2]))
            assert point.mean["psnr"] == pytest.approx(np.mean(point.quality["psnr"][:2]))
            assert (point.bytes[2] is None) == (codec.name == "webp")


def test_a_tokenizer_that_fails_on_some(folder, tmp_path, capsys, monkeypatch) -> None:
    encode = ImageTokenizer.encode

    def failing(self, images, *arguments, **options):
        if images.shape[2] == 64:
            raise RuntimeError("too square")
        return encode(self, images, *arguments, **options)

    monkeypatch.setattr(ImageTokenizer, "encode", failing)
    options = ["--tokenizers", "photo", "--metrics", "psnr"]
    assert bench(folder, tmp_path / "out", *options) == 1
    assert "failed: photo, c.png: too square" in capsys.readouterr().err
    results = Results.load(tmp_path / "out" / "results.json")
    assert results.common == (0, 1)
    names = {codec.name for codec in results.codecs}
    assert {"jpeg", "webp", "photo plain", "photo entropy, weighted"} <= names
    for codec in results.codecs:
        for point in codec.points:
            assert point.mean["psnr"] == pytest.approx(np.mean(point.quality["psnr"][:2]))
            assert (point.bytes[2] is None) == codec.name.startswith("photo")


class Colours(torch.nn.Module):
    """Stands in for Inception: called alike, with features that are quickly computed."""

    def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        return images.float().flatten(2).mean(2)


def test_rfid_with_weights_of_ones_own(folder, tmp_path, capsys) -> None:
    weights, out = tmp_path / "weights", tmp_path / "out"
    weights.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit's, of what FID comes as
        torch.jit.script(Colours()).save(weights / INCEPTION)
    options = ["--metrics", "psnr,rfid", "--weights-dir", str(weights)]
    assert bench(folder, out, *options) == 0
    capsys.readouterr()
    results = Results.load(out / "results.json")
    (point,) = [p for p in results.codecs[0].points if p.setting == "quality 12"]
    means = []
    for name in SIZES:
        original = Image.open(folder / name)
        file = io.BytesIO()
        original.save(file, "JPEG", quality=12, progressive=True, optimize=True)
        means.append([np.array(image).mean((0, 1)) for image in (original, Image.open(file))])
    first, second = np.moveaxis(np.array(means), 1, 0)
    a, b = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = np.trace(scipy.linalg.sqrtm(a @ b).real)
    expected = np.square(first.mean(0) - second.mean(0)).sum() + np.trace(a + b) - 2 * root
    assert point.mean["rfid"] == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "OUT"], "DATA and --out are needed"),
        (["DATA"], "DATA and --out are needed"),
        (["nowhere", "--out", "OUT"], "no such file or folder"),
        (["EMPTY", "--out", "OUT"], "no"),
        (["DATA", "--out", "DATA"], "holds other things"),
        (["DATA", "--out", "OUT", "--baselines", "gif"], "unknown baseline 'gif'"),
        (["DATA", "--out", "OUT", "--baselines", "opus"], "unknown baseline 'opus' for image"),
        (["DATA", "--out", "OUT", "--metrics", "fid"], "unknown metric 'fid'"),
        (["DATA", "--out", "OUT", "--metrics", "lpips"], "needs weights"),
        (["DATA", "--out", "OUT", "--anchor", "gif"], "unknown anchor 'gif': choose of"),
        (["DATA", "--out", "OUT", "--tokenizers", "nobody"], "no tokenizer 'nobody'"),
        (["DATA", "--out", "OUT", "--published", "nobody"], "no such file"),
        (
            ["DATA", "--out", "OUT", "--tokenizers", "none", "--baselines", "none"],
            "there is nothing to compare",
        ),
        (["DATA", "--speed"], "--speed takes --tokenizers and --json only"),
    ],
)
def test_wrong_usage(arguments, message, folder, tmp_path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    places = {"DATA": str(folder), "OUT": str(tmp_path / "out"), "EMPTY": str(tmp_path / "empty")}
    words = [places.get(word, word) for word in arguments]
    if "--tokenizers" not in words and "--speed" not in words:
        words += ["--tokenizers", "none"]
    assert main(["bench", *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_sounds_of_all_kinds(tmp_path, capsys) -> None:
    """Stereo, silence and a scrap: what has no value, and what cannot be coded, is said."""
    data = tmp_path / "data"
    data.mkdir()
    time = np.arange(24_000) / 48_000
    tone = 0.3 * np.sin(2 * np.pi * 440 * time)
    soundfile.write(data / "a.flac", np.stack([tone, tone / 2], axis=1), 48_000)
    soundfile.write(data / "b.wav", np.zeros((8000, 1)), 16_000)
    soundfile.write(data / "c.wav", tone[:50], 16_000)
    soundfile.write(data / "d.wav", np.stack([tone] * 3, axis=1), 48_000)
    options = ["--tokenizers", "none", "--baselines", "opus,mp3", "--metrics", "mel,si_sdr"]
    command = ["bench", str(data), "--out", str(tmp_path / "out"), "--quick", *options]
    assert main(command) == 1
    assert "failed: opus, d.wav: 3 channels" in capsys.readouterr().err
    results = Results.load(tmp_path / "out" / "results.json")
    assert results.rate_unit == "kbps"
    assert results.common == (0, 1, 2)
    assert [(metric.name, metric.samples) for metric in results.metrics] == [
        ("mel", 3),
        ("si_sdr", 2),
    ]
    point = results.codecs[0].points[0]
    assert point.rates[0] == pytest.approx(point.bytes[0] * 8 / 0.5 / 1000)


def test_speed(capsys, monkeypatch) -> None:
    from vqtok.bench import speed

    monkeypatch.setattr(speed, "LOOKUPS", ((64, 4, 16),))
    monkeypatch.setattr(speed, "SECONDS", 0.0)
    assert main(["bench", "--speed", "--tokenizers", "none", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["speed"]
    assert row["what"] == "lookup"
    assert row["per_second"] > 0
