"""Written images: exact where the format is lossless, and whole or absent."""

from __future__ import annotations

import errno

import numpy as np
import pytest
from PIL import Image

from vqtok.errors import UsageError, VqtokError
from vqtok.media import read_image, write_image

PIXELS = np.random.default_rng(0).integers(0, 256, (19, 27, 3), np.uint8)


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_lossless_round_trip(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    write_image(path, PIXELS, kind)
    np.testing.assert_array_equal(read_image(path).pixels, PIXELS)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_quality_orders_the_sizes(tmp_path, kind):
    sizes = []
    for quality in (20, 60, 95):
        write_image(tmp_path / "a", PIXELS, kind, quality)
        assert read_image(tmp_path / "a").pixels.shape == PIXELS.shape
        sizes.append((tmp_path / "a").stat().st_size)
    assert sizes == sorted(set(sizes))


def test_strided_pixels(tmp_path):
    write_image(tmp_path / "a.png", PIXELS[::-1, ::2])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, PIXELS[::-1, ::2])


@pytest.mark.parametrize(
    "pixels", [PIXELS[..., 0], PIXELS.astype(np.float32), PIXELS[..., :2], PIXELS[:0]]
)
def test_other_arrays_are_refused(tmp_path, pixels):
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\]"):
        write_image(tmp_path / "a.png", pixels)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("tiff",), "png, jpg or webp"), (("png", 50), "lossless"), (("jpg", 0), "1 to 100")],
)
def test_wrong_options(tmp_path, arguments, message):
    with pytest.raises(UsageError, match=message):
        write_image(tmp_path / "a", PIXELS, *arguments)


def test_too_long_for_webp(tmp_path):
    with pytest.raises(UsageError, match="at most 16383"):
        write_image(tmp_path / "a.webp", np.zeros((16384, 1, 3), np.uint8), "webp")


def test_long_names_fit(tmp_path):
    path = tmp_path / ("x" * 250 + ".png")
    write_image(path, PIXELS)
    assert path.exists()


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def full(self, stream, *args, **options):
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(VqtokError, match=r"a\.png: cannot write the image: No space left"):
        write_image(path, PIXELS)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_missing_folder(tmp_path):
    with pytest.raises(VqtokError, match="No such file"):
        write_image(tmp_path / "gone" / "a.png", PIXELS)
