"""What can be seen and heard is what the codecs made, at the bytes that are matched."""

import base64
import io
import math

import numpy as np
import pytest
import soundfile
from PIL import Image

from vqtok.bench.report import write_report
from vqtok.bench.report.compare import (
    comparison,
    nearest_setting,
    target_bytes,
    target_rates,
)
from vqtok.bench.report.pictures import codebook_map, heat, lossless
from vqtok.bench.report.sounds import flac, power, spectrogram


def opened(uri):
    kind, data = uri.split(";base64,")
    data = io.BytesIO(base64.b64decode(data))
    if kind.startswith("data:image"):
        with Image.open(data) as image:
            return np.asarray(image.convert("RGBA" if image.mode in ("RGBA", "P") else "RGB"))
    return soundfile.read(data, always_2d=True)


def test_pictures_are_kept_to_the_pixel():
    image = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    np.testing.assert_array_equal(opened(lossless(image)), image)


def test_sounds_are_kept_to_16_bits():
    sound = np.random.default_rng(0).uniform(-1.2, 1.2, (1000, 2)).astype(np.float32)
    samples, rate = opened(flac(sound, 24_000))
    assert rate == 24_000
    np.testing.assert_allclose(samples, np.clip(sound, -1, 1), atol=1.01 / 32768)


def test_every_picture_is_of_the_codec_and_setting_it_says(toys):
    results, media = toys.toy()
    made = comparison(results, media)
    assert len(made["samples"]) == 3
    for entry in made["samples"]:
        name = results.samples[entry["index"]].name
        np.testing.assert_array_equal(
            opened(made["media"][entry["original"]["image"]]), media.original(name)
        )
        for row in entry["shown"]:
            assert [each["codec"] for each in row] == [0, 1, 2]
            for each in row:
                codec = results.codecs[each["codec"]]
                (point,) = [p for p in codec.points if p.setting == each["setting"]]
                assert each["bytes"] == point.bytes[entry["index"]]
                assert each["quality"]["psnr"] == point.quality["psnr"][entry["index"]]
                decoded = media.decoded(codec.name, point.setting, name)
                np.testing.assert_array_equal(opened(made["media"][each["image"]]), decoded)


def test_the_nearest_setting_is_the_nearest_by_ratio(toys):
    results, _ = toys.toy()
    for rate in (0.3, 0.5, 1.5):
        target = target_bytes(results, 1, rate)
        assert target == pytest.approx(rate * 64 * 96 / 8)
        for codec in results.codecs[:3]:
            best = min(codec.points, key=lambda p: max(p.bytes[1] / target, target / p.bytes[1]))
            assert nearest_setting(codec, 1, target) is best
    assert nearest_setting(results.codecs[3], 1, 100.0) is None


def test_at_a_tokenizers_rate_its_own_bytes_are_matched(toys):
    from dataclasses import replace

    results, media = toys.toy()
    photo, *others = results.codecs
    sizes = [(150, 120, 180), (300, 333, 267)]
    points = tuple(replace(p, bytes=s) for p, s in zip(photo.points, sizes, strict=True))
    results = replace(results, codecs=(replace(photo, points=points), *others))
    rates = target_rates(results)
    assert [target_bytes(results, 1, rate) for rate in rates] == [120, 333]
    for entry in comparison(results, media)["samples"]:
        assert [row[0]["ratio"] for row in entry["shown"]] == [1, 1]


def test_shown_names_leave_out_the_shared_folders(toys):
    results, media = toys.toy(names=["data/a/x.png", "data/b/x.png", "data/b/c/y.png"])
    names = [entry["name"] for entry in comparison(results, media)["samples"]]
    assert names == ["a/x.png", "b/x.png", "b/c/y.png"]


def test_rates_to_match_are_the_tokenizers_or_inside_all_curves(toys):
    from dataclasses import replace

    results, _ = toys.toy()
    assert target_rates(results) == [point.rate for point in results.codecs[0].points]
    plain = replace(results, codecs=results.codecs[1:])
    rates = target_rates(plain)
    assert len(rates) == 3
    for codec in plain.codecs[:2]:
        assert codec.points[0].rate < rates[0] < rates[2] < codec.points[-1].rate


def test_the_budget_decides_how_many_samples(toys, tmp_path):
    results, media = toys.toy(names=[f"sample {i}" for i in range(6)])
    whole = comparison(results, media)
    assert len(whole["samples"]) == 6
    sizes = sum(map(len, whole["media"]))
    for share in (0.6, 0.3, 0.05):
        made = comparison(results, media, int(share * sizes))
        assert sum(map(len, made["media"])) <= share * sizes
        used = {e["original"]["image"] for e in made["samples"]}
        used |= {each["image"] for e in made["samples"] for row in e["shown"] for each in row}
        assert used == set(range(len(made["media"])))
        assert made["samples"]
    assert made["samples"][0]["note"]  # only a cut of the first one fits
    write_report(results, media, tmp_path / "small.html", budget=50_000)
    assert (tmp_path / "small.html").stat().st_size < 50_000 + 150_000


def test_large_media_are_cut_in_the_middle(toys):
    results, media = toys.toy(names=["large"])
    rng = np.random.default_rng(0)
    large = np.kron(rng.integers(0, 256, (8, 10, 3)), np.ones((128, 128, 1))).astype(np.uint8)
    media.originals["large"] = large
    media.made = dict.fromkeys(media.made, large)
    (entry,) = comparison(results, media)["samples"]
    assert (entry["width"], entry["height"]) == (768, 768)
    assert entry["note"] == "middle 768 × 768 of 1280 × 1024 pixels"  # noqa: RUF001
    shelf = comparison(results, media)["media"]
    np.testing.assert_array_equal(
        opened(shelf[entry["original"]["image"]]), large[128:896, 256:1024]
    )


def test_long_sounds_are_cut_in_the_middle(toys):
    results, media = toys.toy("audio", names=["long"])
    long = np.random.default_rng(0).uniform(-0.5, 0.5, (30 * toys.RATE, 1)).astype(np.float32)
    media.originals["long"] = long
    media.made = dict.fromkeys(media.made, long)
    made = comparison(results, media)
    (entry,) = made["samples"]
    assert entry["seconds"] == 10
    assert entry["note"] == "10.0 s from second 10.0 of 30.0 s"
    samples, _ = opened(made["media"][entry["original"]["sound"]])
    np.testing.assert_allclose(samples, long[10 * toys.RATE : 20 * toys.RATE], atol=1.01 / 32768)


@pytest.mark.parametrize("frequency", [300.0, 1234.0, 6000.0])
def test_a_tone_is_a_line_at_its_frequency(frequency):
    rate = 16_000
    time = np.arange(2 * rate) / rate
    sound = 0.5 * np.sin(2 * np.pi * frequency * time)[:, None]
    rows = power(sound, rate)
    assert rows.shape[0] == 160
    assert rows.shape[1] <= 720
    middle = rows[:, rows.shape[1] // 2]
    assert abs(int(middle.argmax()) - (159 - int(frequency / 8000 * 160))) <= 1
    decibels = 10 * math.log10(power(sound / 2, rate).max() / rows.max())
    assert decibels == pytest.approx(-6.02, abs=0.01)
    picture = opened(spectrogram(sound, rate, float(rows.max())))
    assert picture.shape[:2] == rows.shape
    brightness = picture[:, rows.shape[1] // 2, :3].astype(int).sum(-1)
    assert brightness.argmax() == middle.argmax()


@pytest.mark.parametrize(("length", "channels"), [(1, 1), (100, 2), (200_000, 2)])
def test_any_sound_has_a_spectrogram(length, channels):
    sound = np.zeros((length, channels), dtype=np.float32)
    rows = power(sound, 48_000)
    assert rows.shape[0] == 160
    assert 1 <= rows.shape[1] <= 720
    assert opened(spectrogram(sound, 48_000, float(rows.max()))).shape[:2] == rows.shape


@pytest.mark.parametrize("size", [1, 3, 64, 1000, 16_384])
def test_the_map_shows_each_code(size):
    """Every code's square is as bright as its count says, or empty but for a dot."""
    counts = np.random.default_rng(size).poisson(1.0, size)
    picture = opened(codebook_map(counts.tolist()))
    columns = 1 << math.ceil(math.log2(size) / 2)
    cell = picture.shape[1] // columns
    assert picture.shape[1] == cell * columns
    corners = picture[::cell, ::cell].reshape(-1, 4)[:size].astype(int)
    middles = picture[(cell - 1) // 2 :: cell, (cell - 1) // 2 :: cell].reshape(-1, 4)[:size]
    used = counts > 0
    if cell > 2:
        assert (corners[used, 3] == 255).all()
        assert (corners[~used, 3] == 0).all()
    assert (middles[:, 3] == 255).all()
    order = np.argsort(counts[used], kind="stable")
    assert (np.diff(corners[used, :3].sum(-1)[order]) >= -6).all()


def test_heat_is_brighter_the_higher():
    colours = heat(np.linspace(0, 1, 64)).astype(float)
    lightness = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > 0).all()
