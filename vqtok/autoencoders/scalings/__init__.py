"""Scalings. A new one is a file and a line in the registry."""

from __future__ import annotations

from vqtok.autoencoders.scalings.base import Scaling
from vqtok.autoencoders.scalings.span import Span
from vqtok.autoencoders.scalings.standardize import Standardize

__all__ = ["SCALINGS", "Scaling", "Span", "Standardize"]

SCALINGS: dict[str, type[Scaling]] = {"standardize": Standardize, "span": Span}
