"""Every kind of image file, pixel for pixel against an oracle."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, features

from vqtok.errors import DataError
from vqtok.media import Source, read_image
from vqtok.media.images import MAX_PIXELS, count_pixels


def pattern(height: int = 23, width: int = 31) -> np.ndarray:
    """uint8 [height, width, 3] without any symmetry."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 8, y * 11, (x * y) % 256], axis=-1).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_count_pixels_reads_headers(tmp_path):
    path = tmp_path / "x.jpg"
    source = Source("x.jpg", str(path))
    assert count_pixels(source) == 0
    path.write_bytes(encoded(Image.new("RGB", (300, 200)), "JPEG")[:700])  # the rest is cut off
    assert count_pixels(source) == 60_000
    path.write_bytes(b"P5 60000 60000 255 ")
    assert count_pixels(source) == 0
    path.write_bytes(b"nothing of the kind")
    assert count_pixels(source) == 0


LOSSLESS = {"PNG": {}, "BMP": {}, "TIFF": {}, "PPM": {}, "WEBP": {"lossless": True}}
LOSSLESS |= {"JPEG2000": {}} if features.check("jpg_2000") else {}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_formats_give_the_exact_pixels(kind):
    pixels = pattern()
    decoded = read_image(encoded(Image.fromarray(pixels), kind, **LOSSLESS[kind]))
    np.testing.assert_array_equal(decoded.pixels, pixels)
    assert decoded.notes == ()
    assert decoded.pixels.flags.writeable
    assert decoded.pixels.flags.c_contiguous


def test_jpeg_and_avif_give_what_pillow_decodes():
    image = Image.fromarray(pattern(64, 48))
    for kind in ["JPEG"] + ["AVIF"] * features.check("avif"):
        content = encoded(image, kind)
        oracle = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        np.testing.assert_array_equal(read_image(content).pixels, oracle)


def test_path_bytes_and_source_are_the_same_image(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(pattern()), "PNG"))
    whole = read_image(path).pixels
    np.testing.assert_array_equal(read_image(str(path)).pixels, whole)
    np.testing.assert_array_equal(read_image(path.read_bytes()).pixels, whole)
    np.testing.assert_array_equal(read_image(Source("a.png", str(path))).pixels, whole)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (2, 2)])
def test_extreme_shapes(shape):
    pixels = pattern(*shape)
    np.testing.assert_array_equal(
        read_image(encoded(Image.fromarray(pixels), "PNG")).pixels, pixels
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation(orientation, kind):
    image = Image.fromarray(pattern())
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(image, kind, exif=exif, **LOSSLESS[kind])
    oracle = Image.fromarray(pattern())
    oracle.getexif()[0x0112] = orientation
    decoded = read_image(content)
    np.testing.assert_array_equal(decoded.pixels, np.asarray(ImageOps.exif_transpose(oracle)))
    assert decoded.notes == (
        () if orientation == 1 else (f"EXIF orientation {orientation} was applied",)
    )


def test_exif_orientation_of_a_jpeg():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.fromarray(pattern(16, 32)), "JPEG", exif=exif)
    oracle = np.rot90(np.asarray(Image.open(io.BytesIO(content))), k=-1)
    np.testing.assert_array_equal(read_image(content).pixels, oracle)


def test_damaged_exif_is_not_an_obstacle():
    content = encoded(Image.fromarray(pattern()), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\x01")
    np.testing.assert_array_equal(read_image(content).pixels, pattern())


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_grey_palette_and_one_bit(mode):
    image = Image.fromarray(pattern()).convert(mode)
    decoded = read_image(encoded(image, "PNG"))
    np.testing.assert_array_equal(decoded.pixels, np.asarray(image.convert("RGB")))
    assert decoded.notes == ()


def deep_grey() -> np.ndarray:
    return np.concatenate([np.arange(0, 65536, 37), [65535]]).astype(np.uint16).reshape(-1, 3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_and_rounded(kind):
    deep = deep_grey()
    decoded = read_image(encoded(Image.fromarray(deep), kind))
    expected = np.floor(deep.astype(np.float64) * 255 / 65535 + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(decoded.pixels, np.repeat(expected[..., None], 3, axis=2))
    assert decoded.notes == ("16-bit grey was scaled to 8 bits",)


def test_16_bit_grey_where_zero_is_white():
    deep = deep_grey()
    content = encoded(Image.fromarray(deep), "TIFF", tiffinfo={262: 0})
    assert Image.open(io.BytesIO(content)).tag_v2[262] == 0
    expected = 255 - np.floor(deep / 257 + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(read_image(content).pixels[..., 0], expected)


def test_16_bit_grey_with_a_transparent_level():
    deep = np.array([[0, 1000, 65535]], np.uint16)
    decoded = read_image(encoded(Image.fromarray(deep), "PNG", transparency=1000))
    assert decoded.pixels[..., 1].tolist() == [[0, 255, 255]]
    assert len(decoded.notes) == 2


def test_16_bit_colour_keeps_the_high_byte():
    deep = (np.arange(18).reshape(2, 3, 3) * 3000).astype(">u2")
    header = b"P6\n3 2\n65535\n"
    pixels = read_image(header + deep.tobytes()).pixels  # PPM: Pillow scales and rounds
    np.testing.assert_allclose(pixels, deep / 257, atol=0.51)
    raw = _png_of_16_bit_colour(deep)
    decoded = read_image(raw)
    np.testing.assert_array_equal(decoded.pixels, deep >> 8)
    assert decoded.notes == ("16 bits a channel were reduced to 8",)


def _png_of_16_bit_colour(deep: np.ndarray) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    height, width, _ = deep.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(("mode", "kind"), [("F", "floating-point"), ("I", "32-bit integer")])
def test_samples_without_a_white_level_are_refused(mode, kind):
    content = encoded(Image.new(mode, (3, 2)), "TIFF")
    with pytest.raises(DataError, match=kind):
        read_image(content)


def test_cmyk_without_a_profile():
    cmyk = Image.fromarray(pattern(16, 16)).convert("CMYK")
    content = encoded(cmyk, "TIFF")
    decoded = read_image(content)
    np.testing.assert_array_equal(decoded.pixels, np.asarray(cmyk.convert("RGB")))
    assert decoded.notes == ("CMYK was converted without a colour profile",)


def test_cmyk_jpeg_is_not_inverted():
    white = Image.new("CMYK", (16, 16), (0, 0, 0, 0))
    assert read_image(encoded(white, "JPEG")).pixels.min() > 250


def test_alpha_is_laid_over_white():
    rgba = np.dstack([pattern(), np.arange(23 * 31).reshape(23, 31) % 256]).astype(np.uint8)
    exact = rgba.astype(np.float64)
    alpha = exact[..., 3:] / 255
    expected = np.floor(exact[..., :3] * alpha + 255 * (1 - alpha) + 0.5)
    for kind in ("PNG", "TIFF"):
        decoded = read_image(encoded(Image.fromarray(rgba), kind))
        np.testing.assert_allclose(decoded.pixels, expected, atol=0)
        assert decoded.notes == ("transparency was laid over white",)


def test_opaque_alpha_changes_nothing():
    image = Image.fromarray(pattern()).convert("RGBA")
    decoded = read_image(encoded(image, "PNG"))
    np.testing.assert_array_equal(decoded.pixels, pattern())
    assert decoded.notes == ()


def test_grey_alpha_and_transparent_palette():
    la = Image.fromarray(np.array([[[10, 0], [10, 255]]], np.uint8), "LA")
    assert read_image(encoded(la, "PNG")).pixels[0, :, 0].tolist() == [255, 10]
    palette = Image.new("P", (2, 1))
    palette.putpalette([1, 2, 3, 4, 5, 6])
    palette.putpixel((1, 0), 1)
    decoded = read_image(encoded(palette, "PNG", transparency=b"\x00\xff"))
    assert decoded.pixels.tolist() == [[[255, 255, 255], [4, 5, 6]]]
    assert decoded.notes == ("transparency was laid over white",)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    decoded = read_image(content)
    np.testing.assert_array_equal(decoded.pixels, np.full((6, 8, 3), (255, 0, 0), np.uint8))
    assert decoded.notes == ("the first of several frames or pages was read",)


def linear_profile() -> bytes:
    """An RGB profile with sRGB's primaries and a linear curve: a known, large difference."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for index in range(int.from_bytes(profile[128:132], "big")):
        tag = 132 + 12 * index
        if bytes(profile[tag : tag + 4]) in (b"rTRC", b"gTRC", b"bTRC"):
            offset = int.from_bytes(profile[tag + 4 : tag + 8], "big")
            profile[offset : offset + 14] = b"curv\0\0\0\0\0\0\0\x01\x01\x00"  # gamma 1.0
    return bytes(profile).replace(
        "sRGB built-in".encode("utf-16-be"), "Test  linear ".encode("utf-16-be")
    )


def test_embedded_profile_is_converted_to_srgb():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    decoded = read_image(encoded(Image.fromarray(ramp), "PNG", icc_profile=linear_profile()))
    linear = np.arange(256) / 255
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(decoded.pixels[0, :, 1], curve * 255, atol=1.6)
    (note,) = decoded.notes
    assert "Test  linear" in note
    assert "sRGB" in note


def test_srgb_profile_changes_nothing():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    decoded = read_image(encoded(Image.fromarray(pattern()), "PNG", icc_profile=srgb))
    np.testing.assert_array_equal(decoded.pixels, pattern())
    assert decoded.notes == ()


def test_unusable_profile_is_ignored_and_noted():
    for profile in (b"not a profile" * 20, linear_profile()[:200]):
        decoded = read_image(encoded(Image.fromarray(pattern()), "PNG", icc_profile=profile))
        np.testing.assert_array_equal(decoded.pixels, pattern())
        assert decoded.notes == ("an unusable colour profile was ignored",)


def test_rgb_profile_on_cmyk_is_ignored():
    content = encoded(Image.new("CMYK", (4, 4)), "TIFF", icc_profile=linear_profile())
    assert read_image(content).notes == (
        "an unusable colour profile was ignored",
        "CMYK was converted without a colour profile",
    )


def test_strips_do_not_show(monkeypatch):
    rgba = np.dstack([pattern(), np.arange(23 * 31).reshape(23, 31) % 256]).astype(np.uint8)
    for image in (Image.fromarray(rgba), Image.fromarray(pattern()), Image.fromarray(deep_grey())):
        content = encoded(image, "PNG")
        whole = read_image(content).pixels
        monkeypatch.setattr("vqtok.media.srgb.STRIP_PIXELS", 100)
        np.testing.assert_array_equal(read_image(content).pixels, whole)
        monkeypatch.undo()


# --- files that must be refused ---


@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.6, 0.95])
@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"] + ["AVIF"] * features.check("avif")
)
def test_truncated_files_are_refused(kind, fraction, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    path = tmp_path / "cut.img"
    path.write_bytes(content[: int(len(content) * fraction)])
    with pytest.raises(DataError, match=r"cut\.img.*(truncated|not an image)"):
        read_image(path)


def test_progressive_jpeg_cut_in_a_late_scan_is_refused():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    content = encoded(Image.fromarray(noise), "JPEG", progressive=True)
    with pytest.raises(DataError, match="truncated"):
        read_image(content[:-40])


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"some plain text\n" * 40, "not an image"), (b"\xff\xd8\xff", "truncated")],
)
def test_files_that_are_no_image(tmp_path, content, message):
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"photo\.png.*{message}"):
        read_image(path)


def test_postscript_is_never_run(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(DataError, match="not an image"):
        read_image(path)


def test_missing_folder_and_unreadable(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"gone\.png.*No such file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path)

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Source, "open", refuse)
    with pytest.raises(DataError, match=r"x/a\.png: cannot be read: Permission denied"):
        read_image(Source("x/a.png", "/nowhere/a.png"))


def test_too_many_pixels_are_refused_before_they_are_allocated():
    content = bytearray(encoded(Image.new("L", (16, 16)), "PNG"))
    content[16:24] = (60_000).to_bytes(4, "big") * 2  # width and height in IHDR
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    with pytest.raises(
        DataError, match="60000x60000 pixels are more than the limit of 150,000,000"
    ):
        read_image(bytes(content))
    assert MAX_PIXELS == 150_000_000


def test_max_pixels_can_be_chosen():
    content = encoded(Image.fromarray(pattern(10, 10)), "PNG")
    with pytest.raises(DataError, match="limit of 99"):
        read_image(content, max_pixels=99)
    assert read_image(content, max_pixels=100).pixels.shape == (10, 10, 3)


def test_the_limit_does_not_depend_on_pillows_own(monkeypatch):
    content = encoded(Image.fromarray(pattern()), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Image.open would raise here
    np.testing.assert_array_equal(read_image(content).pixels, pattern())


def test_random_damage_is_refused_or_decoded_never_anything_else():
    rng = np.random.default_rng(3)
    image = Image.fromarray(pattern(40, 40))
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"):
        content = encoded(image, kind)
        for _ in range(60):
            damaged = bytearray(content)
            for position in rng.integers(0, len(content), 3):
                damaged[position] = rng.integers(0, 256)
            try:
                pixels = read_image(bytes(damaged), max_pixels=1_000_000).pixels
            except DataError:
                continue
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == 3


# --- threads and warnings ---


def test_pillows_warnings_stay_inside_and_the_filters_come_back():
    before = list(warnings.filters)
    content = bytearray(encoded(Image.fromarray(pattern()), "TIFF"))
    entries = int.from_bytes(content[4:8], "little") + 2
    content[entries + 12 * 8 + 4 : entries + 12 * 8 + 8] = b"\xff\xff\xff\x00"
    with pytest.raises(UserWarning, match=r"larger than file|Corrupt|too large|Metadata"):
        Image.open(io.BytesIO(content)).load()
    np.testing.assert_array_equal(read_image(bytes(content)).pixels, pattern())
    assert list(warnings.filters) == before


def test_many_threads_read_alike():
    contents = [encoded(Image.fromarray(pattern(30 + i, 40)), "PNG") for i in range(8)]
    before = list(warnings.filters)
    barrier = threading.Barrier(8)

    def work(i: int) -> bool:
        barrier.wait()
        same = [(read_image(contents[i]).pixels == pattern(30 + i, 40)).all() for _ in range(10)]
        return all(same)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert list(warnings.filters) == before
