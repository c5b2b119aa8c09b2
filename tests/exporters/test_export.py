"""What all exports promise."""

from __future__ import annotations
