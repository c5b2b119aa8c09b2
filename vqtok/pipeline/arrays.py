"""Codes that other programs left in .npy files, as an input like images and sounds."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from vqtok.errors import DataError
from vqtok.media.sources import Source
from vqtok.pipeline.overlap import overlapped
from vqtok.tokens import Header, Sample
from vqtok.tokens.header import DIMS, dump_json
from vqtok.tokens.writer import check_codes

EXTENSIONS = frozenset({".npy"})

CODEBOOK = "q"
FLAT = "hw"
_AXES = {"image": ({"h", "w"}, {FLAT}), "audio": ({"t"}, {"t", "c"})}


@dataclass(frozen=True)
class ForeignCodes:
    """What the arrays in .npy files are; in a plan it stands for the tokenizer that made them.

    Attributes:
        name: of that tokenizer.
        codebook_sizes: K of each codebook.
        modality: "image" or "audio".
        axes: names of the last axes of every array: "h" and "w" (or "hw", in one), or "t" and,
            where there are channels, "c"; and "q", the codebooks, which may be missing where there
            is one. Each combination of indices of the axes before these is a sample of its own, a
            "crop". None: ("h", "w", "q") or ("t", "q"); of one codebook, "q" is there if the last
            axis has length 1 and there are enough others.
        grid: height and width of "hw".
        fingerprint: of the tokenizer; by default it is derived from name and codebook_sizes.

    Raises ValueError for axes that do not go together.
    """

    name: str
    codebook_sizes: tuple[int, ...]
    modality: str = "image"
    axes: tuple[str, ...] | None = None
    grid: tuple[int, int] | None = None
    fingerprint: str = field(default="")
    device = "cpu"
    prior = None

    def __post_init__(self) -> None:
        if not self.fingerprint:
            known = dump_json({"name": self.name, "codebook_sizes": list(self.codebook_sizes)})
            object.__setattr__(self, "fingerprint", hashlib.sha256(known).hexdigest())
        if (FLAT in (self.axes or ())) != (self.grid is not None):
            raise ValueError("a grid is needed with the axis hw, and only then")
        if self.axes is None:
            return
        dims = {name for name in self.axes if name != CODEBOOK}
        if dims not in _AXES[self.modality] or len(set(self.axes)) != len(self.axes):
            raise ValueError(f"axes {' '.join(self.axes)!r} are not those of {self.modality} codes")
        if CODEBOOK not in self.axes and len(self.codebook_sizes) > 1:
            raise ValueError(f"of {len(self.codebook_sizes)} codebooks one axis must be q")

    @property
    def reading(self) -> str:
        """How arrays are read, for the plan."""
        axes = "" if self.axes is None else " ".join(self.axes)
        return f"npy {axes}" + ("" if self.grid is None else " {}x{}".format(*self.grid))

    def read(
        self, sources: Iterable[Source], header: Header, workers: int
    ) -> Generator[list[Sample] | DataError, None, None]:
        """The samples of each file, or what is wrong with it; ``workers`` threads read."""

        def read(source: Source) -> list[Sample] | DataError:
            try:
                return self.samples(source, header)
            except DataError as error:
                return error
            except OSError as error:
                return DataError(f"{source.uri}: {error.strerror or error}")

        with closing(overlapped(read, sources, workers)) as results:
            yield from results

    def samples(self, source: Source, header: Header) -> list[Sample]:
        """The samples of one file. DataError where it is damaged or its codes are out of range."""
        array = read_npy(source)
        try:
            crops = self.arrange(array)
            samples = []
            for place in np.ndindex(*crops.shape[: crops.ndim - len(header.dims) - 1]):
                codes = check_codes(crops[place], header, source.uri)
                meta: dict[str, Any] = {"source": source.uri}
                if place:
                    meta["crop"] = place[0] if len(place) == 1 else list(place)
                samples.append(Sample(codes, meta))
        except ValueError as error:
            raise DataError(
                f"{source.uri}: {str(error).removeprefix(f'{source.uri}: ')}"
            ) from error
        return samples

    def arrange(self, array: NDArray[Any]) -> NDArray[Any]:
        """An array of a file as [*crops, *dims, Q]; ValueError when it has too few axes."""
        axes = self._axes_of(array)
        if array.ndim < len(axes):
            raise ValueError(f"an array of shape {list(array.shape)} has no axes {' '.join(axes)}")
        if CODEBOOK not in axes:
            array, axes = array[..., None], (*axes, CODEBOOK)
        if self.grid is not None:
            at = axes.index(FLAT) - len(axes)
            height, width = self.grid
            if array.shape[at] != height * width:
                raise ValueError(f"{array.shape[at]} codes are not a grid of {height}x{width}")
            after = array.shape[array.ndim + at + 1 :]
            array = array.reshape(*array.shape[: array.ndim + at], height, width, *after)
            place = axes.index(FLAT)
            axes = (*axes[:place], "h", "w", *axes[place + 1 :])
        if self.modality == "audio" and "c" not in axes:
            array, axes = array[..., None], (*axes, "c")
        wanted = (*DIMS[self.modality], CODEBOOK)
        start = array.ndim - len(axes)
        order = [start + axes.index(name) for name in wanted]
        return array.transpose(*range(start), *order)

    def _axes_of(self, array: NDArray[Any]) -> tuple[str, ...]:
        if self.axes is not None:
            return self.axes
        dims = ("h", "w") if self.modality == "image" else ("t",)
        one = len(self.codebook_sizes) == 1
        if one and not (array.ndim > len(dims) and array.shape[-1] == 1):
            return dims
        return (*dims, CODEBOOK)


def read_npy(source: Source) -> NDArray[Any]:
    """The integers in a .npy file; DataError for anything else, before memory is taken for it."""
    try:
        with source.open() as file:
            version = npy.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise DataError(f"{source.uri}: .npy version {version} is not known")
            read = npy.read_array_header_1_0 if version[0] == 1 else npy.read_array_header_2_0
            shape, fortran, dtype = read(file)
            left = source.size - file.tell()
            if dtype.kind not in "iu":
                raise DataError(f"{source.uri}: its numbers are {dtype}, not integers")
            if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != left:
                raise DataError(f"{source.uri}: {left} bytes are no array of shape {list(shape)}")
            data = file.read(left)
        if len(data) != left:
            raise DataError(f"{source.uri}: cut short while it was read")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    except (DataError, OSError):
        raise
    except Exception as error:  # a header is a Python expression: any fault of one may come
        reason = str(error) or type(error).__name__
        raise DataError(f"{source.uri}: not a .npy file of numbers ({reason})") from error
