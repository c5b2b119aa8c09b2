"""Decoded images of every mode to upright 8-bit sRGB pixels."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from vqtok.errors import DataError

if TYPE_CHECKING:
    from PIL import Image, ImageFile

BACKGROUND = 255
"""Transparent pixels are laid over this grey level, white."""

STRIP_PIXELS = 4_000_000

_PROFILE_MODES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}


def to_srgb(image: ImageFile.ImageFile, notes: list[str]) -> np.ndarray:
    """Convert a loaded image of any mode, strip by strip to bound the memory.

    Args:
        image: the image, its pixels already read.
        notes: what was changed is appended here.

    Returns:
        uint8 [H, W, 3], sRGB, not yet turned upright.

    Raises:
        DataError: the samples have no 8-bit meaning (float, 32-bit integer).
    """
    convert = _converter(image, notes)
    width, height = image.size
    rows = max(1, STRIP_PIXELS // width)
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        strip = image if rows >= height else image.crop((0, top, width, bottom))
        pixels[top:bottom] = convert(strip)
    return pixels


def _converter(image: ImageFile.ImageFile, notes: list[str]) -> Callable[[Image.Image], np.ndarray]:
    """Choose how strips of this image become uint8 [h, W, 3]."""
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        return _deep_grey_converter(image, notes)
    if mode in ("I", "F"):
        kind = "floating-point" if mode == "F" else "32-bit integer"
        raise DataError(f"{kind} samples have no known white level; convert it to 8 or 16 bits")
    transparent = mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    if mode in ("LA", "RGBA"):
        transparent = image.getchannel("A").getextrema() != (255, 255)
    to_rgb = _profile_converter(image, notes)
    if not transparent:
        return lambda strip: np.asarray(to_rgb(strip))
    notes.append("transparency was laid over white")

    def composite(strip: Image.Image) -> np.ndarray:
        strip = strip.convert("RGBA")
        alpha = np.asarray(strip.getchannel("A"), np.uint16)[..., None]
        colour = np.asarray(to_rgb(strip.convert("RGB")), np.uint16)
        # At most 255 * 255 + 127, which 16 bits hold.
        mixed: np.ndarray = (colour * alpha + BACKGROUND * (255 - alpha) + 127) // 255
        return mixed.astype(np.uint8)

    return composite


def _deep_grey_converter(
    image: ImageFile.ImageFile, notes: list[str]
) -> Callable[[Image.Image], np.ndarray]:
    tags = getattr(image, "tag_v2", {})  # TIFF alone: bits per sample, and whether 0 is white
    bits = tags.get(258, (16,))[0]
    inverted = tags.get(262) == 0
    top = (1 << bits) - 1
    see_through = image.info.get("transparency")
    notes.append(f"{bits}-bit grey was scaled to 8 bits")
    if isinstance(see_through, int):
        notes.append("transparency was laid over white")

    def scale(strip: Image.Image) -> np.ndarray:
        deep = np.asarray(strip).astype(np.uint32)
        grey = ((np.minimum(deep, top) * 255 + top // 2) // top).astype(np.uint8)
        grey = 255 - grey if inverted else grey
        if isinstance(see_through, int):
            grey[deep == see_through] = BACKGROUND
        return np.repeat(grey[..., None], 3, axis=2)

    return scale


def _profile_converter(
    image: ImageFile.ImageFile, notes: list[str]
) -> Callable[[Image.Image], Image.Image]:
    """A function from strips to RGB strips, through the embedded profile where there is one."""
    icc = image.info.get("icc_profile")
    if image.mode == "LAB":
        return _through_profile(None, "LAB")
    if icc:
        from PIL import ImageCms

        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            name = "".join(filter(str.isprintable, ImageCms.getProfileDescription(profile)))[:60]
            mode = _PROFILE_MODES[profile.profile.xcolor_space.strip()]
            if (mode == "CMYK") != (image.mode == "CMYK"):
                raise ValueError("the profile is for another kind of image")
            if "srgb" in name.lower():
                return lambda strip: strip.convert("RGB")
            convert = _through_profile(profile, mode)
            notes.append(f"colours were converted from the profile {name!r} to sRGB")
            return convert
        except (ImageCms.PyCMSError, ImportError, KeyError, OSError, TypeError, ValueError):
            notes.append("an unusable colour profile was ignored")
    if image.mode == "CMYK":
        notes.append("CMYK was converted without a colour profile")
    return lambda strip: strip.convert("RGB")


def _through_profile(profile: Any, mode: str) -> Callable[[Image.Image], Image.Image]:
    from PIL import ImageCms

    transform = ImageCms.buildTransform(
        profile or ImageCms.createProfile("LAB"),
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )

    def convert(strip: Image.Image) -> Image.Image:
        converted = ImageCms.applyTransform(strip.convert(mode), transform)
        assert converted is not None  # None only when it works in place
        return converted

    return convert


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation: uint8 [H, W, 3] to [H, W, 3], or [W, H, 3] for 5 to 8."""
    if orientation in (2, 3, 7, 8):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 6, 7):
        pixels = pixels[::-1]
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    return np.ascontiguousarray(pixels)
