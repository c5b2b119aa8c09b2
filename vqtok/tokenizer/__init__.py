"""Images and sounds to codes and back: what users import, and what the command line runs."""

from __future__ import annotations

from vqtok.autoencoders.storage import CONFIG_NAME
from vqtok.tokenizer.base import Tokenizer, bundled_names, find_pretrained
from vqtok.tokenizer.images import ImageTokenizer, to_pixels, to_unit_range

__all__ = [
    "CONFIG_NAME",
    "ImageTokenizer",
    "Tokenizer",
    "bundled_names",
    "find_pretrained",
    "to_pixels",
    "to_unit_range",
]
