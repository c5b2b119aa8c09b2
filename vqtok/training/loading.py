"""Arrays from files: tables (.csv), numpy files (.npy, .npz) and folders of small images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from vqtok.errors import DataError, UsageError
from vqtok.media.images import read_image
from vqtok.media.listing import list_sources
from vqtok.media.series import NUMPY_DAMAGE, csv_rows, is_number, read_series
from vqtok.media.text import read_text
from vqtok.training.arrays import as_samples

_USUAL_KEYS = ("X", "x", "data", "x_train", "X_train", "train", "images", "train_images")
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Loaded:
    """Samples of one shape.

    Attributes:
        samples: [N, ...]: float32, or uint8 and int64 as they were stored.
        skipped: one line for each file that was left out, and why.
    """

    samples: Tensor
    skipped: tuple[str, ...] = ()


def load_samples(path: str, *, key: str | None = None, size: int | None = None) -> Loaded:
    """Read an array [N, ...].

    Args:
        path: a .npy, .npz or .csv file; else images: a folder, a glob, a list of paths or a .tar.
        key: which array of an .npz; by default the only one, or one of the usual names.
        size: images are cut to their central square and resized to this side; without it they
            must all have one size.

    Raises:
        UsageError: there is no such file or key.
        DataError: the file is damaged, or holds no numbers, NaN or infinities.
    """
    kind = Path(path).suffix.lower()
    if kind in (".npy", ".npz", ".csv"):
        if not Path(path).is_file():
            raise UsageError(f"{path}: no such file")
        array = _read_csv(path) if kind == ".csv" else _read_numpy(path, key)
        if array.ndim == 1:
            array = array[:, None]
        if array.ndim == 3 and array.dtype == np.uint8:
            array = array[:, None]  # grey images
        if array.ndim == 4 and array.shape[-1] in (1, 3) and array.shape[1] not in (1, 3):
            array = np.moveaxis(array, -1, 1)
        try:
            return Loaded(as_samples(np.ascontiguousarray(array), path))
        except UsageError as error:
            raise DataError(str(error)) from error
    return _read_images(path, size)


def load_sequences(
    path: str, *, key: str | None = None, lines: bool = False
) -> list[npt.NDArray[np.float32]] | list[bytes]:
    """Read sequences, for :func:`vqtok.training.fit_sequences.fit_sequences`.

    Args:
        path: a .txt, or series as :func:`vqtok.media.series.read_series` reads them.
        key: which array of an .npz.
        lines: each line of a text that is not empty is a sequence; without it the text is one.

    Raises:
        UsageError: there is no such file or key.
        DataError: the file is damaged or empty.
    """
    if Path(path).is_dir():
        raise UsageError(f"{path} is a folder; sequences are in a .txt, .npy, .npz or .csv")
    if not Path(path).is_file():
        raise UsageError(f"{path}: no such file")
    if Path(path).suffix.lower() != ".txt":
        if lines:
            raise UsageError(f"{path} is no .txt and has no lines")
        return read_series(path, key=key)
    text = read_text(path)
    found = [line for line in text.splitlines() if line] if lines else [text]
    if not found:
        raise DataError(f"{path} has only empty lines")
    return found


def _read_numpy(path: str, key: str | None) -> npt.NDArray[Any]:
    """The array of an .npy file, or one of those of an .npz."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded as file:
            names = list(file)
            chosen = key or next((name for name in _USUAL_KEYS if name in names), None)
            if chosen is None and len(names) == 1:
                chosen = names[0]
            if chosen not in names:
                wanted = f"no array {key!r}" if key else "several arrays and no X"
                raise UsageError(f"{path} has {wanted}; choose one of {', '.join(names)}")
            array: npt.NDArray[Any] = file[chosen]
    except UsageError:
        raise
    except NUMPY_DAMAGE as error:
        raise DataError(f"{path} is not a numpy file of numbers: {error}") from error
    return array


def _read_csv(path: str) -> npt.NDArray[np.float32]:
    """Numbers, a row per sample; a first row that holds anything else is the header."""
    rows = csv_rows(path)
    header = bool(rows) and not all(is_number(cell) for cell in rows[0][1])
    names = (
        rows[0][1]
        if header
        else [f"column {place}" for place in range(1, len(rows[0][1]) + 1 if rows else 1)]
    )
    rows = rows[header:]
    if not rows:
        raise DataError(f"{path} holds no rows of numbers")
    numbers = np.empty((len(rows), len(names)), dtype=np.float32)
    for place, (line, row) in enumerate(rows):
        if len(row) != len(names):
            raise DataError(
                f"{path}, line {line}: {len(row)} values, but there are {len(names)} columns"
            )
        for column, cell in enumerate(row):
            wrong = _why_no_value(cell, names[column])
            if wrong is not None:
                raise DataError(f"{path}, line {line}: {wrong}")
            numbers[place, column] = float(cell)
    return numbers


def _why_no_value(cell: str, column: str) -> str | None:
    """What is wrong with a cell of a table; None if it is a number."""
    if not cell.strip():
        return f"the value of {column!r} is missing; fill it in or drop the line"
    if not is_number(cell):
        return f"{cell[:40]!r} in {column!r} is no number; drop the column or code it as numbers"
    if not abs(float(cell)) <= _LARGEST:
        return f"{cell[:40]!r} in {column!r} is not finite in float32; fill it or drop the line"
    return None


def _read_images(path: str, size: int | None) -> Loaded:
    pixels: list[npt.NDArray[np.uint8]] = []
    skipped = []
    for source in list_sources(path):
        try:
            image = read_image(source).pixels
        except DataError as error:
            skipped.append(str(error))
            continue
        if size is not None:
            image = _square(image, size)
        if pixels and image.shape != pixels[0].shape:
            height, width = image.shape[:2]
            first_height, first_width = pixels[0].shape[:2]
            raise UsageError(
                f"{source.uri} is {width}x{height}, the first image {first_width}x{first_height}; "
                f"--size S resizes all of them to S x S"
            )
        pixels.append(image)
    if not pixels:
        raise UsageError(f"{path} holds no readable images")
    stacked = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    if bool((stacked[:, :1] == stacked).all()):
        stacked = stacked[:, :1]  # grey
    return Loaded(stacked.contiguous(), tuple(skipped))


def _square(image: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """The central square of [H, W, 3], resized to size x size."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    box = (left, top, left + side, top + side)
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS, box=box)
    return np.asarray(resized, dtype=np.uint8)
