"""Series of real values from .npy, .npz and .csv files. No torch, never a pickle."""

from __future__ import annotations

import csv
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vqtok.errors import DataError, UsageError

Series = npt.NDArray[np.float32]

SERIES_EXTENSIONS = (".npy", ".npz", ".csv")

# What NumPy raises for a file that is not what its name says.
NUMPY_DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)


def read_series(path: str | os.PathLike[str], *, key: str | None = None) -> list[Series]:
    """The series of a file.

    ``.npy``: [N, T, C] holds N series of C channels, [T, C] and [T] hold one. ``.npz``: the same
    in its only array, or in ``x`` or ``X``; ``lengths`` [N] may say how much of each of N series
    there is. ``.csv``: a row for each time, a column for each channel, perhaps a header; columns
    whose first value is no number (names, dates) are not channels.

    Args:
        path: the file.
        key: which array of an .npz.

    Returns:
        float32 [T, C] each, T >= 1, all of the same C.

    Raises:
        UsageError: the file's name ends in something else, or there is no such key.
        DataError: it is damaged, of another shape, empty, or holds NaN, infinities or no numbers.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        return [_finite(path, _read_csv(path))]
    if path.suffix.lower() not in SERIES_EXTENSIONS:
        raise UsageError(f"{path}: series are read from {', '.join(SERIES_EXTENSIONS)} files")
    array, lengths = _load(path, key)
    if array.ndim not in (1, 2, 3) or array.dtype.kind not in "fiub" or array.size == 0:
        raise DataError(
            f"{path} holds {array.dtype} {list(array.shape)}; series are numbers [N, T, C], "
            f"[T, C] or [T], at least one"
        )
    if array.ndim < 3:
        if lengths is not None:
            raise DataError(f"{path} has lengths, but its series are not [N, T, C]")
        return [_finite(path, array if array.ndim == 2 else array[:, None])]
    if lengths is None:
        lengths = np.full(len(array), array.shape[1])
    whole = lengths.shape == (len(array),) and lengths.dtype.kind in "iu"
    if not whole or lengths.min() < 1 or lengths.max() > array.shape[1]:
        raise DataError(
            f"{path}: lengths must be {len(array)} integers in 1..{array.shape[1]}, "
            f"not {lengths.dtype} {list(lengths.shape)}"
        )
    return [_finite(path, row[:length]) for row, length in zip(array, lengths, strict=True)]


def _load(
    path: Path, key: str | None
) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.generic] | None]:
    """The array of an .npy or .npz file, and its lengths."""
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded, None
            arrays = {name: loaded[name] for name in loaded.files}
    except FileNotFoundError:
        raise
    except NUMPY_DAMAGE as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    lengths = arrays.pop("lengths", None)
    if key is not None and key not in arrays:
        raise UsageError(f"{path} has no array {key!r}; choose one of {', '.join(sorted(arrays))}")
    for name in ("x", "X") if key is None else (key,):
        if name in arrays:
            return arrays[name], lengths
    if len(arrays) != 1:
        raise DataError(f"{path} holds {sorted(arrays)}; name the array of series x")
    return arrays.popitem()[1], lengths


def csv_rows(path: str | os.PathLike[str]) -> list[tuple[int, list[str]]]:
    """The rows of a .csv file that are not empty, each with its line number (from 1).

    Raises:
        DataError: it is not UTF-8, not CSV, or its values are separated by something else.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8: {error}") from error
    if rows and len(rows[0][1]) == 1:
        for delimiter in (";", "\t"):
            if delimiter in rows[0][1][0]:
                raise DataError(
                    f"{path} separates its values by {delimiter!r}: separate them by commas"
                )
    return rows


def is_number(field: str) -> bool:
    """Whether a field of a .csv is a number (perhaps NaN or Inf)."""
    try:
        float(field)
    except ValueError:
        return False
    return True


def _read_csv(path: Path) -> npt.NDArray[np.float64]:
    rows = csv_rows(path)
    if rows and not any(is_number(field) for field in rows[0][1]):
        names, rows = rows[0][1], rows[1:]
    else:
        names = [str(number) for number in range(1, 1 + len(rows[0][1]) if rows else 1)]
    columns = [place for place, field in enumerate(rows[0][1]) if is_number(field)] if rows else []
    if not columns:
        raise DataError(f"{path} holds no numbers below its header")
    table = np.empty((len(rows), len(columns)))
    for number, (line, row) in enumerate(rows):
        if len(row) != len(names):
            raise DataError(f"{path}, line {line}: {len(row)} fields, not {len(names)}")
        for place, column in enumerate(columns):
            field = row[column]
            if not is_number(field):
                wrong = (
                    f"{field[:40]!r} is not a number" if field.strip() else "the value is missing"
                )
                raise DataError(f"{path}, line {line}, column {names[column]}: {wrong}")
            table[number, place] = float(field)
    return table


def _finite(path: Path, series: npt.NDArray[np.generic]) -> Series:
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(series, dtype=np.float32)
    if not np.isfinite(values).all():
        row, channel = np.argwhere(~np.isfinite(values))[0]
        raise DataError(
            f"{path}: time {row}, channel {channel} is {series[row, channel]}; fill the gap, or "
            f"leave the time out"
        )
    return values
