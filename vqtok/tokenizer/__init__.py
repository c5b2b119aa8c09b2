"""Images and sounds to codes and back: what users import, and what the command line runs."""

from __future__ import annotations

from vqtok.autoencoders.storage import CONFIG_NAME
from vqtok.tokenizer.audio import AudioTokenizer
from vqtok.tokenizer.base import Tokenizer
from vqtok.tokenizer.bundled import (
    bundled_maker,
    bundled_names,
    bundled_versions,
    find_pretrained,
    is_bundled_name,
)
from vqtok.tokenizer.images import ImageTokenizer, to_pixels, to_unit_range
from vqtok.tokenizer.stream import AudioStream

__all__ = [
    "CONFIG_NAME",
    "AudioStream",
    "AudioTokenizer",
    "ImageTokenizer",
    "Tokenizer",
    "bundled_maker",
    "bundled_names",
    "bundled_versions",
    "find_pretrained",
    "is_bundled_name",
    "to_pixels",
    "to_unit_range",
]
