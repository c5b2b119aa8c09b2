"""Image formats through Pillow."""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np
import PIL
from PIL import Image, features

from vqtok.bench.codecs.base import Array, Baseline
from vqtok.bench.optional import need
from vqtok.bench.results import Sample
from vqtok.errors import UsageError


class PillowFormat(Baseline):
    """A format of Pillow's; ``options`` of its ``save``, by setting."""

    def __init__(
        self, name: str, format_name: str, description: str, values: dict[str, Any], version: str
    ) -> None:
        super().__init__(name, description, values, version)
        self._format = format_name

    def encode(self, value: Any, original: Array, sample: Sample) -> bytes:
        file = io.BytesIO()
        Image.fromarray(original).save(file, self._format, **value)
        return file.getvalue()

    def decode(self, setting: str, data: bytes, sample: Sample) -> Array:
        with Image.open(io.BytesIO(data), formats=[self._format]) as image:
            return np.array(image.convert("RGB"))


def _qualities(values: tuple[int, ...], **options: Any) -> dict[str, Any]:
    return {f"quality {value}": {"quality": value, **options} for value in values}


def _version(feature: str) -> str:
    return f"Pillow {PIL.__version__}, {feature} {features.version(feature)}"


def _jpeg() -> PillowFormat:
    description = "JPEG, progressive, optimised, 4:2:0"
    options = {"progressive": True, "optimize": True}
    values = _qualities((3, 5, 8, 12, 20, 35, 50, 70, 85), **options)
    return PillowFormat("jpeg", "JPEG", description, values, _version("jpg"))


def _webp() -> PillowFormat:
    values = _qualities((0, 5, 10, 20, 40, 60, 80, 90), method=6)
    return PillowFormat("webp", "WEBP", "WebP, lossy, method 6", values, _version("webp"))


def _avif() -> PillowFormat:
    _supported("avif", "avif")
    values = _qualities((15, 25, 35, 45, 55, 65, 75, 85), speed=6, max_threads=1)
    return PillowFormat("avif", "AVIF", "AVIF, 4:2:0, speed 6", values, _version("avif"))


def _jp2() -> PillowFormat:
    _supported("jp2", "jpg_2000")
    values = {
        f"1 : {ratio}": {"quality_mode": "rates", "quality_layers": [ratio], "irreversible": True}
        for ratio in (240, 160, 100, 64, 40, 25, 16, 10)
    }
    description = "JPEG 2000, irreversible, by ratio of compression"
    return PillowFormat("jp2", "JPEG2000", description, values, _version("jpg_2000"))


JXL = ("pillow-jxl-plugin>=1.3", "pillow_jxl")


def _jxl() -> PillowFormat:
    need(*JXL, "format jxl")
    values = _qualities((5, 12, 20, 30, 45, 60, 75, 88), effort=7, num_threads=1)
    version = f"pillow-jxl-plugin {metadata.version('pillow-jxl-plugin')}"
    return PillowFormat("jxl", "JXL", "JPEG XL, lossy, effort 7", values, version)


def _supported(name: str, feature: str) -> None:
    if not features.check(feature):
        raise UsageError(f"format {name}: this Pillow was built without it; pip install -U pillow")


PICTURES: dict[str, Callable[[], Baseline]] = {
    "jpeg": _jpeg,
    "webp": _webp,
    "avif": _avif,
    "jp2": _jp2,
    "jxl": _jxl,
}
