"""Media files in and out, and the lists of files that a job works through. No torch here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqtok.media.images import DecodedImage, read_image, write_image
    from vqtok.media.names import safe_name
    from vqtok.media.sources import Listing, Source, list_sources, scan_sources

_HOME = {
    "DecodedImage": "images",
    "read_image": "images",
    "write_image": "images",
    "safe_name": "names",
    "Listing": "sources",
    "Source": "sources",
    "list_sources": "sources",
    "scan_sources": "sources",
}

__all__ = [
    "DecodedImage",
    "Listing",
    "Source",
    "list_sources",
    "read_image",
    "safe_name",
    "scan_sources",
    "write_image",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
