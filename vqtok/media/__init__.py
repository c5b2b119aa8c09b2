"""Media files in and out, and the lists of files that a job works through. No torch here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqtok.media.audio import AudioReader, DecodedAudio, read_audio
    from vqtok.media.audio_writer import AUDIO_FORMATS, AudioWriter, write_audio
    from vqtok.media.images import DecodedImage, read_image, write_image
    from vqtok.media.listing import Listing, list_sources, scan_sources
    from vqtok.media.names import safe_name
    from vqtok.media.resampling import Resampler, resample
    from vqtok.media.sources import Source

_HOME = {
    "AUDIO_FORMATS": "audio_writer",
    "AudioReader": "audio",
    "AudioWriter": "audio_writer",
    "DecodedAudio": "audio",
    "DecodedImage": "images",
    "Listing": "listing",
    "Resampler": "resampling",
    "Source": "sources",
    "list_sources": "listing",
    "read_audio": "audio",
    "read_image": "images",
    "resample": "resampling",
    "safe_name": "names",
    "scan_sources": "listing",
    "write_audio": "audio_writer",
    "write_image": "images",
}

__all__ = [
    "AUDIO_FORMATS",
    "AudioReader",
    "AudioWriter",
    "DecodedAudio",
    "DecodedImage",
    "Listing",
    "Resampler",
    "Source",
    "list_sources",
    "read_audio",
    "read_image",
    "resample",
    "safe_name",
    "scan_sources",
    "write_audio",
    "write_image",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
