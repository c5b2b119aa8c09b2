"""Image files in and out: whatever Pillow reads, as sRGB pixels, and never a silently wrong one.

Every way in which the file's content was changed on the way to 8-bit sRGB is written into the
notes of the result; a file that cannot be decoded whole is refused.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from vqtok.errors import DataError, UsageError, VqtokError
from vqtok.files import atomic_write
from vqtok.media.quiet import quiet_pillow
from vqtok.media.sources import Openable, Source, name_of, opened
from vqtok.media.srgb import to_srgb, upright

if TYPE_CHECKING:
    from PIL import Image, ImageFile

MAX_PIXELS = 150_000_000
"""Images of more pixels than this are refused before anything is allocated for them."""

FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "DIB",
    "TIFF",
    "AVIF",
    "JPEG2000",
    "PPM",
    "QOI",
    "ICO",
    "PCX",
    "SGI",
    "SUN",
    "PSD",
    "DDS",
)
"""Pillow's names of the formats that are read. Left out: those that run another program (EPS),
have no signature to tell them by (TGA), or are empty shells (HDF5, GRIB)."""


@dataclass(frozen=True)
class DecodedImage:
    """The pixels of one image file.

    Attributes:
        pixels: uint8 [H, W, 3], sRGB, writable, upright (the EXIF orientation is applied).
        notes: what was changed or left out on the way, one short sentence each; empty for an
            ordinary 8-bit photo.
    """

    pixels: np.ndarray
    notes: tuple[str, ...] = ()


def read_image(source: Openable, *, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Decode one image to 8-bit sRGB.

    Grey, palette and 1-bit images become RGB. 16-bit grey is scaled by 255/65535 and rounded;
    of 16-bit colour the high byte is kept, as Pillow does. CMYK and images with an embedded
    colour profile other than sRGB are converted with that profile. Transparent images are laid
    over white. Of an animation or a file of several pages the first picture is read. Memory is
    about 8 bytes a pixel for a photo. Safe to call from several threads at once; Pillow's
    settings are neither changed nor, ``ImageFile.LOAD_TRUNCATED_IMAGES`` apart, relied upon.

    Args:
        source: a path, the bytes of a file, or a :class:`~vqtok.media.sources.Source`.
        max_pixels: refuse images with more pixels than this.

    Raises:
        DataError: the file is missing, unreadable, empty, not an image, truncated, damaged, of a
            kind that has no 8-bit meaning (float, 32-bit integer), or too large.
    """
    name = name_of(source)
    with _refusing(name), quiet_pillow(), opened(source) as stream:
        image = _identify(stream)
        width, height = image.size
        if width * height > max_pixels:
            raise DataError(
                f"{width}x{height} pixels are more than the limit of {max_pixels:,}; "
                f"raise max_pixels to read it (about {width * height * 8 >> 20:,} MiB of memory)"
            )
        notes = []
        if getattr(image, "is_animated", False):
            notes.append("the first of several frames or pages was read")
        deep = any(";16" in str(tile) for tile in image.tile)
        # Pillow turns TIFF files by itself while it loads them, and then forgets the tag.
        turned = _orientation(image) if image.format == "TIFF" else 1
        image.load()
        orientation = _orientation(image)
        if max(turned, orientation) > 1:
            notes.append(f"EXIF orientation {max(turned, orientation)} was applied")
        if deep and image.mode in ("RGB", "RGBA", "LA", "CMYK"):
            notes.append("16 bits a channel were reduced to 8")
        return DecodedImage(upright(to_srgb(image, notes), orientation), tuple(notes))


def count_pixels(source: Source) -> int:
    """Pixels of an image by its header, nothing decoded; 0 when :func:`read_image` will refuse."""
    try:
        with _refusing(source.uri), quiet_pillow(), source.open() as stream:
            width, height = _identify(stream).size
    except DataError:
        return 0
    return width * height if width * height <= MAX_PIXELS else 0


def write_image(
    path: str | os.PathLike[str],
    pixels: np.ndarray,
    format: str = "png",  # noqa: A002
    quality: int | None = None,
) -> None:
    """Write one image under a temporary name, then rename it: the path never holds half a file.

    Args:
        path: the file to write; its folder must exist. An existing file is replaced.
        pixels: uint8 [H, W, 3], sRGB.
        format: ``png``, ``jpg`` or ``webp``, whatever the path ends in.
        quality: 1 to 100 for lossy jpg or webp. None is lossless for webp and 95 for jpg; png
            is always lossless and takes none.

    Raises:
        ValueError: pixels of another type or shape.
        UsageError: an unknown format or quality, or an image too large for the format.
        VqtokError: the file cannot be written.
    """
    from PIL import Image

    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"pixels must be uint8 [H, W, 3], got {pixels.dtype} {pixels.shape}")
    pillow_name, options = _save_options(format, quality)
    path = Path(path)
    longest = max(pixels.shape[:2])
    limit = {"JPEG": 65535, "WEBP": 16383}.get(pillow_name, longest)
    if longest > limit:
        raise UsageError(f"{path}: {format} holds at most {limit} pixels a side, not {longest}")
    try:
        with atomic_write(path, durable=False) as stream:
            Image.fromarray(np.ascontiguousarray(pixels)).save(stream, pillow_name, **options)
    except OSError as error:
        raise VqtokError(f"{path}: cannot write the image: {error.strerror or error}") from error


def _save_options(extension: str, quality: int | None) -> tuple[str, dict[str, Any]]:
    if quality is not None and not 1 <= quality <= 100:
        raise UsageError(f"quality must be 1 to 100, not {quality}")
    if extension == "png":
        if quality is not None:
            raise UsageError("png is lossless and takes no quality; choose jpg or webp")
        return "PNG", {}
    if extension == "jpg":
        quality = 95 if quality is None else quality
        return "JPEG", {"quality": quality, "subsampling": 0 if quality >= 90 else 2}
    if extension == "webp":
        if quality is None:
            return "WEBP", {"lossless": True, "exact": True}
        return "WEBP", {"quality": quality}
    raise UsageError(f"unknown image format {extension!r}: choose png, jpg or webp")


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises on a hostile file into a DataError that names the file."""
    try:
        yield
    except DataError as error:
        message = str(error)
        raise error if message.startswith(name) else DataError(f"{name}: {message}") from error
    except OSError as error:
        if error.errno is not None:
            raise DataError(f"{name}: cannot be read: {error.strerror or error}") from error
        raise DataError(f"{name}: the image is truncated or damaged: {error}") from error
    except MemoryError as error:
        raise DataError(f"{name}: decoding needs more memory than there is") from error
    except Exception as error:
        detail = str(error) or type(error).__name__
        raise DataError(f"{name}: the image is truncated or damaged: {detail}") from error


def _identify(stream: BinaryIO) -> ImageFile.ImageFile:
    """Read the header, as Pillow's ``open`` does, but without its process-wide size limit."""
    from PIL import Image

    Image.init()
    prefix = stream.read(16)
    if not prefix:
        raise DataError("the file is empty")
    reason = ""
    for kind in FORMATS:
        factory, accept = Image.OPEN.get(kind, (None, None))
        accepted = accept(prefix) if accept else False
        if isinstance(accepted, str):
            reason = accepted
        elif factory and accepted:
            stream.seek(0)
            try:
                return factory(stream, "")
            except (SyntaxError, IndexError, TypeError, KeyError, struct.error) as error:
                reason = f"truncated or damaged {kind} header: {error}"
    formats = ", ".join(FORMATS[:9])
    raise DataError(reason or f"not an image, or of a format that is not read (read: {formats}...)")


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # unreadable metadata says nothing about the pixels
        return 1
    return orientation if orientation in range(1, 9) else 1
