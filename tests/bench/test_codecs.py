"""Codecs: whole files, decoded from themselves alone, at every rate."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from vqtok.bench.codecs import BASELINES, Lineup, available
from vqtok.bench.codecs.base import measured
from vqtok.bench.codecs.tokenizers import RATE_WEIGHT, TokenizerCoder
from vqtok.bench.results import Sample
from vqtok.errors import UsageError
from vqtok.media import read_audio, read_image
from vqtok.samples import photos, sounds
from vqtok.tokenizer import AudioTokenizer, Tokenizer
from vqtok.tokens import ShardReader


def image_sample(pixels: np.ndarray) -> Sample:
    height, width = pixels.shape[:2]
    return Sample(name="a", original_bytes=1, height=height, width=width)


def sound_sample(sound: np.ndarray, rate: int) -> Sample:
    seconds, channels = len(sound) / rate, sound.shape[1]
    return Sample(name="a", original_bytes=1, seconds=seconds, sample_rate=rate, channels=channels)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.ascontiguousarray(read_image(photos()[0]).pixels[100:165, 150:247])


@pytest.mark.parametrize("name", list(BASELINES["image"]))
def test_formats_of_images(name, photo) -> None:
    coder = BASELINES["image"][name]()
    coded = list(coder.code(photo, image_sample(photo)))
    assert tuple(each.setting for each in coded) == coder.curves[0].settings
    sizes = [len(each.data) for each in coded]
    assert sizes[0] < sizes[-1]
    for each in coded:
        assert each.decoded.shape == photo.shape
        assert each.decoded.dtype == np.uint8
        again = coder.decode(each.setting, each.data, image_sample(photo))
        assert np.array_equal(again, each.decoded)
    errors = [np.square(each.decoded.astype(float) - photo).mean() for each in coded]
    assert errors[0] > errors[-1]


@pytest.mark.parametrize(
    ("name", "quality", "options"),
    [
        ("jpeg", 12, {"progressive": True, "optimize": True}),
        ("webp", 10, {"method": 6}),
        ("avif", 35, {"speed": 6, "max_threads": 1}),
    ],
)
def test_bytes_and_pixels_are_pillows(name, quality, options, photo) -> None:
    file = io.BytesIO()
    Image.fromarray(photo).save(file, format=name.upper(), quality=quality, **options)
    coded = BASELINES["image"][name]().code(photo, image_sample(photo))
    (found,) = [each for each in coded if each.setting == f"quality {quality}"]
    assert found.data == file.getvalue()
    assert np.array_equal(found.decoded, np.array(Image.open(file).convert("RGB")))


@pytest.mark.parametrize("name", list(BASELINES["audio"]))
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_formats_of_sounds(name, rate) -> None:
    if name not in available("audio")[0]:
        pytest.skip(f"{name} cannot be used here")
    path = next(path for path in sounds() if path.name.startswith("speech"))
    original = np.ascontiguousarray(read_audio(path, rate).samples.T[: rate * 2 + 7])
    if name != "codec2":
        original = np.concatenate([original, original / 2], axis=1)
    sample = sound_sample(original, rate)
    coder = BASELINES["audio"][name]()
    coder.thin_out(2)
    low, high = coder.code(original, sample)
    for each in (low, high):
        assert each.decoded.shape == original.shape
        assert each.decoded.dtype == np.float32
        assert np.array_equal(coder.decode(each.setting, each.data, sample), each.decoded)
    assert len(low.data) < len(high.data)
    if name != "codec2":  # in step with the original, or it would not correlate
        assert np.corrcoef(high.decoded[:, 0], original[:, 0])[0, 1] > 0.8
        asked = int(high.setting.split()[0])
        assert len(high.data) * 8 / sample.seconds / 1000 == pytest.approx(asked, rel=0.35)


def test_a_tokenizer_of_images(photo, tmp_path) -> None:
    tokenizer = Tokenizer.from_pretrained("photo")
    coder = TokenizerCoder("photo", tokenizer, settings=2)
    sample = image_sample(photo)
    coded = list(coder.code(photo, sample))
    assert [curve.name for curve in coder.curves] == ["photo plain", "photo bits", "photo entropy"]
    counts = {name: setting.num_codebooks for name, setting in coder.settings.items()}
    assert [(each.setting, each.curve) for each in coded] == [
        (setting, curve.name) for setting in counts for curve in coder.curves
    ]
    batch = torch.from_numpy(photo).permute(2, 0, 1)[None]
    for each in coded:
        codes = tokenizer.encode(batch, num_codebooks=counts[each.setting])
        assert np.array_equal(coder.codes(each.data), codes[0].numpy())
        decoded = tokenizer.decode(codes, size=photo.shape[:2])[0].permute(1, 2, 0).numpy()
        assert np.array_equal(each.decoded, decoded)
        assert np.array_equal(coder.decode(each.setting, each.data, sample), decoded)
        # A whole token file, which any reader of the format reads.
        (tmp_path / "a.safetensors").write_bytes(each.data)
        shard = ShardReader(tmp_path / "a.safetensors")
        assert np.array_equal(shard.read(0).codes, codes[0].numpy())
        assert shard.header.packing == each.curve.split()[1]
        assert shard.meta(0) == {"size": [65, 97]}
        assert 0 < coder.code_bytes(each.data) < len(each.data)
    plain, bits, entropy = (coder.code_bytes(each.data) for each in coded[-3:])
    assert entropy < bits < plain


def test_codes_chosen_by_their_bits_are_a_curve_of_their_own(photo) -> None:
    tokenizer = Tokenizer.from_pretrained("photo")
    coder = TokenizerCoder("photo", tokenizer)
    name = "photo entropy, weighted"
    assert [curve.name for curve in coder.curves][-2:] == ["photo entropy", name]
    coded = {each.setting: each for each in coder.code(photo, image_sample(photo))}
    batch = torch.from_numpy(photo).permute(2, 0, 1)[None]
    numbers = list(coder.curves[-2].settings)
    saved = []
    for count, (number, setting) in enumerate(
        zip(numbers, coder.curves[-1].settings, strict=True), 1
    ):
        each = coded[setting]
        assert (each.curve, setting) == (name, f"{number}, rate weight {RATE_WEIGHT}")
        codes = tokenizer.encode(batch, num_codebooks=count, rate_weight=RATE_WEIGHT)
        assert np.array_equal(coder.codes(each.data), codes[0].numpy())
        saved.append(coder.code_bytes(coded[number].data) - coder.code_bytes(each.data))
    assert saved[-1] > 0  # of fewer, a look ahead may rather bring the latents nearer


def test_a_tokenizer_of_sounds(make_audio_model) -> None:
    tokenizer = AudioTokenizer(make_audio_model(), name="toy")
    coder = TokenizerCoder("toy", tokenizer)
    sound = np.random.default_rng(0).normal(0, 0.1, (4801, 2)).astype(np.float32)
    sample = sound_sample(sound, 48_000)
    coded = list(coder.code(sound, sample))
    assert len(coded) == 9
    for each in coded:
        assert each.decoded.shape == sound.shape
        assert np.array_equal(coder.decode(each.setting, each.data, sample), each.decoded)


def test_lineups() -> None:
    names = Lineup("image", ("photo",), ("jpeg", "webp"), quick=True)
    photo, jpeg, webp = names.coders()
    assert [photo.name, jpeg.name, webp.name] == ["photo", "jpeg", "webp"]
    assert [len(jpeg.curves[0].settings), len(photo.curves[0].settings)] == [3, 3]
    with pytest.raises(UsageError, match="unknown baseline 'gif' for image: choose of jpeg"):
        Lineup("image", (), ("gif",)).coders()
    with pytest.raises(UsageError, match="tokenizer photo is for image, the data is audio"):
        Lineup("audio", ("photo",), ()).coders()


def test_time_and_memory_are_measured() -> None:
    with measured() as small:
        pass
    with measured() as large:
        block = np.ones(1 << 23)
    assert large.seconds > 0
    if large.peak is not None:
        assert small.peak is not None
        assert small.peak < 1 << 22
        assert block.nbytes * 0.9 < large.peak < block.nbytes * 1.5
