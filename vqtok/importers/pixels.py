"""What networks of images take pixels for."""

from __future__ import annotations

from vqtok.autoencoders import Autoencoder
from vqtok.errors import UsageError
from vqtok.nn import UnitDecoder, UnitEncoder


def with_pixels(model: Autoencoder, pixels: str) -> Autoencoder:
    """The model, which is to see pixels of -1..1, around networks of ``pixels``.

    Args:
        model: as published.
        pixels: ``"signed"`` (-1..1) or ``"unit"`` (0..1), what its own code feeds it.

    Raises:
        UsageError: ``pixels`` is neither.
    """
    if pixels not in ("signed", "unit"):
        raise UsageError(f"pixels must be signed or unit, not {pixels!r}")
    if pixels == "signed":
        return model
    return Autoencoder(UnitEncoder(model.encoder), model.quantizer, UnitDecoder(model.decoder))
