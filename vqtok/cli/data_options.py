"""How ``--data`` of an autoencoder are read: what ``vqtok train`` and ``vqtok inspect`` share."""

from __future__ import annotations

import argparse
from pathlib import Path

from vqtok.cli.common import positive
from vqtok.errors import UsageError


def add_data_options(group: argparse._ArgumentGroup) -> None:
    """Define ``--key`` and ``--size``."""
    group.add_argument("--key", help="which array of an .npz (default: X, or the only one)")
    group.add_argument("--size", type=positive, help="resize images to SIZE x SIZE")


def check_data_options(
    data: str | None, *, key: str | None, size: int | None, sequences: bool
) -> None:
    """UsageError for an option that would do nothing, or data that cannot be read.

    Args:
        data: of the option, if it was given.
        key, size: likewise.
        sequences: whether the model takes sequences, rather than samples of one shape.
    """
    if data is None:
        if key is not None or size is not None:
            raise UsageError("--key and --size say how --data are read: give --data")
        return
    suffix = Path(data).suffix.lower()
    if key is not None and suffix != ".npz":
        raise UsageError(f"--key chooses an array of an .npz, which {data} is not")
    if size is not None and sequences:
        raise UsageError("--size resizes images, and this model takes sequences")
    if size is not None and suffix in (".csv", ".npy", ".npz"):
        raise UsageError(f"--size resizes images; {data} is an array and stays as it is")
