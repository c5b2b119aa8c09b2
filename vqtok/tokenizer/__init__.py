"""Images and sounds to codes and back: what users import, and what the command line runs."""

from __future__ import annotations

from vqtok.autoencoders.storage import CONFIG_NAME
from vqtok.tokenizer.audio import AudioTokenizer
from vqtok.tokenizer.base import Tokenizer, bundled_names, find_pretrained
from vqtok.tokenizer.images import ImageTokenizer, to_pixels, to_unit_range
from vqtok.tokenizer.stream import AudioStream

__all__ = [
    "CONFIG_NAME",
    "AudioStream",
    "AudioTokenizer",
    "ImageTokenizer",
    "Tokenizer",
    "bundled_names",
    "find_pretrained",
    "to_pixels",
    "to_unit_range",
]
