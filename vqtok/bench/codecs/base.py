"""What every codec is, tokenizer or format, and how its work is measured."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from numpy.typing import NDArray

from vqtok.bench.results import Kind, Sample
from vqtok.errors import VqtokError

Array = NDArray[Any]


@dataclass(frozen=True)
class Curve:
    """A codec as the report has it: settings from low to high rate."""

    name: str
    description: str
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Coded:
    """A sample at one setting. ``data`` is the whole file, ``decoded`` made from it alone."""

    curve: str
    setting: str
    data: bytes
    decoded: Array
    encode_seconds: float
    decode_seconds: float
    peak_memory_bytes: int | None


class Coder:
    """Something that codes samples at several rates, for one curve of the report or more.

    ``identity``: JSON-able, all that decides its files beside the samples. ``fingerprint``: that of
    a tokenizer. Originals are uint8 [H, W, 3] or float32 [n, C]; decoded samples have their shape.
    """

    kind: ClassVar[Kind]
    name: str
    curves: tuple[Curve, ...]
    identity: dict[str, Any]
    fingerprint: str | None = None

    def code(self, original: Array, sample: Sample) -> Iterator[Coded]:
        """Code and decode at every setting of every curve; any exception means that it cannot."""
        raise NotImplementedError

    def decode(self, setting: str, data: bytes, sample: Sample) -> Array:
        """What a file that :meth:`code` made holds."""
        raise NotImplementedError


class Baseline(Coder):
    """A format with one curve; ``values`` are what its encoder takes, by setting."""

    kind = "baseline"

    def __init__(self, name: str, description: str, values: dict[str, Any], version: str) -> None:
        self.name = name
        self.values = values
        self.curves = (Curve(name, description, tuple(values)),)
        self.identity = {"name": name, "version": version, "description": description}

    def thin_out(self, count: int) -> None:
        """Keep ``count`` settings, evenly spread."""
        names = list(self.values)
        step = (len(names) - 1) / (count - 1)
        self.values = {
            names[round(i * step)]: self.values[names[round(i * step)]] for i in range(count)
        }
        self.curves = (replace(self.curves[0], settings=tuple(self.values)),)

    def encode(self, value: Any, original: Array, sample: Sample) -> bytes:
        """The file of ``original`` at one of ``values``."""
        raise NotImplementedError

    def code(self, original: Array, sample: Sample) -> Iterator[Coded]:
        for setting, value in self.values.items():
            with measured() as encoding:
                data = self.encode(value, original, sample)
            with measured() as decoding:
                decoded = self.decode(setting, data, sample)
            if decoded.shape != original.shape:
                raise VqtokError(
                    f"a decoded sample has shape {list(decoded.shape)}, the original "
                    f"{list(original.shape)}"
                )
            yield Coded(
                self.name,
                setting,
                data,
                decoded,
                encoding.seconds,
                decoding.seconds,
                most(encoding, decoding),
            )


@dataclass
class Measured:
    """What a block took; ``peak`` is in bytes, None where the system does not tell."""

    seconds: float = 0.0
    peak: int | None = None


@contextmanager
def measured() -> Iterator[Measured]:
    """Time a block, and how much more memory the process held in it than before."""
    found = Measured()
    before = _begin_peak()
    start = time.perf_counter()
    yield found
    found.seconds = time.perf_counter() - start
    if before is not None:
        found.peak = max(0, _status("VmHWM") - before)


def most(*parts: Measured) -> int | None:
    """The largest of the peaks."""
    peaks = [part.peak for part in parts if part.peak is not None]
    return max(peaks, default=None)


def _begin_peak() -> int | None:
    """Resident bytes now, the system's peak set back to them; None where it cannot be."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed counts again when it is used again
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        return _status("VmRSS")
    except (OSError, AttributeError, ValueError):
        return None


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    raise OSError(f"no {name}")
