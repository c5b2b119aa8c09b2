"""vqtok: images and sounds to discrete tokens and back.

Importing this package is cheap: a name loads what it needs when it is first used, so that reading
token files never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vqtok._version import __version__

if TYPE_CHECKING:
    from vqtok.autoencoders import Autoencoder, build_autoencoder
    from vqtok.quantizers import Quantized, ResidualQuantizer, VectorQuantizer
    from vqtok.token_stream import TokenStream
    from vqtok.tokenizer import Tokenizer
    from vqtok.tokens import TokenReader
    from vqtok.tokens.sequences import SequenceLayout, TokenDataset, TokenSource, Vocabulary

_HOMES = {
    "Autoencoder": "vqtok.autoencoders",
    "build_autoencoder": "vqtok.autoencoders",
    "Quantized": "vqtok.quantizers",
    "ResidualQuantizer": "vqtok.quantizers",
    "VectorQuantizer": "vqtok.quantizers",
    "Tokenizer": "vqtok.tokenizer",
    "TokenReader": "vqtok.tokens",
    "SequenceLayout": "vqtok.tokens.sequences",
    "TokenDataset": "vqtok.tokens.sequences",
    "TokenSource": "vqtok.tokens.sequences",
    "TokenStream": "vqtok.token_stream",
    "Vocabulary": "vqtok.tokens.sequences",
}

__all__ = [
    "Autoencoder",
    "Quantized",
    "ResidualQuantizer",
    "SequenceLayout",
    "TokenDataset",
    "TokenReader",
    "TokenSource",
    "TokenStream",
    "Tokenizer",
    "VectorQuantizer",
    "Vocabulary",
    "__version__",
    "build_autoencoder",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vqtok' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
