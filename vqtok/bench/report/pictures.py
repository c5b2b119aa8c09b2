"""Pictures of the report, as data URIs."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_STOPS = np.array(
    [[22, 11, 57], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]]
)
"""Of a map from dark to bright whose lightness alone tells the values."""
_MAP_SIDE = 512


def data_uri(kind: str, data: bytes) -> str:
    """The bytes as the address of themselves; ``kind`` as in "image/png"."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def lossless(image: NDArray[Any]) -> str:
    """An image [H, W, 3] of uint8, to the pixel."""
    file = io.BytesIO()
    # The fastest method: others take ten times as long for a tenth fewer bytes.
    Image.fromarray(image).save(file, "webp", lossless=True, quality=0, method=0)
    return data_uri("image/webp", file.getvalue())


def heat(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Colours [..., 3] of values [...] in [0, 1]."""
    position = np.clip(values, 0, 1) * (len(_STOPS) - 1)
    grid = np.arange(len(_STOPS))
    channels = [np.interp(position, grid, _STOPS[:, channel]) for channel in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


def png_of_heat(values: NDArray[np.float64]) -> str:
    """Values [H, W] in [0, 1] as a PNG of 64 colours."""
    image = Image.fromarray(np.round(np.clip(values, 0, 1) * 63).astype(np.uint8), "P")
    image.putpalette(heat(np.arange(64) / 63).tobytes())
    file = io.BytesIO()
    image.save(file, "png", optimize=True)
    return data_uri("image/png", file.getvalue())


def codebook_map(counts: Sequence[int]) -> str:
    """A PNG with a square per code, row by row, the brighter the more often it occurs (on a
    logarithmic scale); a code that never occurs is a dot on nothing.
    """
    columns = 1 << math.ceil(math.log2(max(1, len(counts))) / 2)
    rows = math.ceil(len(counts) / columns)
    cell = max(2, min(16, _MAP_SIDE // columns))
    padded = np.zeros((rows, columns))
    padded.reshape(-1)[: len(counts)] = counts
    level = np.log1p(padded) / max(math.log1p(padded.max()), 1e-9)
    squares = np.zeros((rows, columns, cell, cell, 4), dtype=np.uint8)
    squares[padded > 0, ..., :3] = heat(0.25 + 0.75 * level[padded > 0])[:, None, None]
    squares[padded > 0, ..., 3] = 255
    if cell > 3:  # a gap between squares
        squares[..., -1, :, 3] = squares[..., :, -1, 3] = 0
    unused = (padded == 0).reshape(-1)
    unused[len(counts) :] = False
    middle = slice((cell - 1) // 2, (cell - 1) // 2 + (2 if cell > 8 else 1))
    squares[unused.reshape(rows, columns), middle, middle] = (128, 128, 128, 255)
    image = squares.transpose(0, 2, 1, 3, 4).reshape(rows * cell, columns * cell, 4)
    file = io.BytesIO()
    Image.fromarray(image).quantize(64).save(file, "png", optimize=True)
    return data_uri("image/png", file.getvalue())
