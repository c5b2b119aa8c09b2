"""A learned prior over codes that is exact on every machine: prior.safetensors.

The file and the arithmetic are defined in FORMAT.md, section "Priors".
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from vqtok.errors import DataError
from vqtok.files import atomic_write
from vqtok.ops import entropy
from vqtok.ops.prior import Wanted
from vqtok.tokens.header import DIMS, dump_json, parse_json
from vqtok.tokens.models import check_whole, grid_of
from vqtok.tokens.prior_tensors import Checker

PRIOR = "prior.safetensors"
FORMAT = "vqtok.prior"
FORMAT_VERSION = 1

MAX_BYTES = 1 << 27


class Prior:
    """What codes are likely, given those around them.

    Streams are coded by it and by counters together, which learn from the sample as it is coded.

    Args:
        tensors: numpy arrays as FORMAT.md names them.
        codebook_sizes: K of each codebook, each in [1, 2**20].
        modality: "image" or "audio".
        tokenizer: fingerprint of the tokenizer whose codes it was trained on.
        training: how it came about, JSON types only.

    Raises ValueError that says what is wrong with the arguments.
    """

    def __init__(
        self,
        tensors: Mapping[str, NDArray[Any]],
        *,
        codebook_sizes: Sequence[int],
        modality: str,
        tokenizer: str,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        self.codebook_sizes = tuple(codebook_sizes)
        self.modality = modality
        self.tokenizer = tokenizer
        self.training = dict(training or {})
        self.tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
        if modality not in DIMS or not isinstance(tokenizer, str):
            raise ValueError(f"modality {modality!r} or tokenizer {tokenizer!r} are malformed")
        sizes = self.codebook_sizes
        if not sizes or not all(
            type(size) is int and 1 <= size <= entropy.MAX_CODEBOOK_SIZE for size in sizes
        ):
            raise ValueError(
                f"codebook_sizes must be integers in [1, {entropy.MAX_CODEBOOK_SIZE}], got {sizes}"
            )
        self.networks = Checker(self.tensors, sizes).networks()

    def __repr__(self) -> str:
        return f"Prior(codebook_sizes={self.codebook_sizes}, digest={self.digest[:12]!r})"

    @classmethod
    def load(cls, path: Path | str) -> Prior:
        """Read a file; DataError naming it when it is not a well-formed prior."""
        path = Path(path)
        try:
            size = path.stat().st_size
            data = path.read_bytes() if size <= MAX_BYTES else b""
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        if size > MAX_BYTES:
            raise DataError(f"{path}: {size} bytes are too many for a prior")
        return cls.from_bytes(data, str(path))

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Prior:
        """As :meth:`load`; ``where`` names the file in errors."""
        try:
            tensors = load(data)
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise DataError(f"{where}: not a safetensors file ({error})") from error
        head = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")], where)
        value = parse_json((head.get("__metadata__") or {}).get("vqtok", "null").encode(), where)
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise DataError(f"{where}: not a prior of vqtok (no {FORMAT!r} header)")
        if value.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"{where}: prior format version {value.get('format_version')!r} is not readable by "
                f"this vqtok (it knows version {FORMAT_VERSION}): install a newer vqtok"
            )
        try:
            prior = cls(
                tensors,
                **{key: value[key] for key in ("codebook_sizes", "modality", "tokenizer")},
                training=value.get("training"),
            )
        except KeyError as error:
            raise DataError(f"{where}: the header lacks {error}") from error
        except (ValueError, TypeError) as error:
            raise DataError(f"{where}: {error}") from error
        prior._data = data
        return prior

    @cached_property
    def _data(self) -> bytes:
        header = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "tokenizer": self.tokenizer,
            "codebook_sizes": list(self.codebook_sizes),
            "modality": self.modality,
            "training": self.training,
        }
        return save(self.tensors, {"vqtok": dump_json(header).decode()})

    def to_bytes(self) -> bytes:
        """The file; the same arguments give the same bytes."""
        return self._data

    def save(self, path: Path | str) -> None:
        """Write the file, whole or not at all."""
        with atomic_write(Path(path)) as file:
            file.write(self.to_bytes())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file in hexadecimal: what token files name."""
        return hashlib.sha256(self._data).hexdigest()

    def encode(self, codes: NDArray[Any]) -> list[bytes]:
        """The streams of codes [*dims, q], of the first q codebooks, each in [0, K)."""
        return self.encode_planes(self._planes(codes))

    def decode(self, streams: Sequence[bytes], dims: tuple[int, ...]) -> NDArray[np.int64]:
        """Codes int64 [*dims, q] from q streams; ValueError for streams that no encoder makes."""
        self._check_depth(len(streams))
        planes = np.zeros((len(streams), *grid_of(dims)), np.uint32)
        for q, stream in enumerate(streams):
            self.decode_plane(planes, q, stream)
        return _codes(planes, dims)

    def costs(self, codes: NDArray[Any]) -> NDArray[np.float64]:
        """What each of the codes [*dims, q] costs by the prior alone, in bits: float64 of the same
        shape.
        """
        weights = self.networks.weights(self._planes(codes)).astype(np.float64)
        bits = np.log2(weights[..., 1] / weights[..., 0] * (weights[..., 3] / weights[..., 2]))
        return np.ascontiguousarray(np.moveaxis(bits, 0, -1)).reshape(codes.shape)

    def sample(
        self, dims: tuple[int, ...], num_codebooks: int, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Codes int64 [*dims, num_codebooks] drawn from the prior: what random bytes stand for."""
        self._check_depth(num_codebooks)
        planes = np.zeros((num_codebooks, *grid_of(dims)), np.uint32)
        for q in range(num_codebooks):
            # a code is two symbols at most, of 31 bits at most
            self.networks.decode(planes, q, rng.bytes(8 * math.prod(dims) + 8), mixed=False)
        return _codes(planes, dims)

    def encode_planes(self, planes: entropy.Planes) -> list[bytes]:
        """The streams of planes uint32 [q, rows, columns], codes in range."""
        return self.networks.encode(np.ascontiguousarray(planes), mixed=True)

    def decode_plane(self, planes: entropy.Planes, q: int, stream: bytes) -> None:
        """Fill plane q, those before it being known; ValueError for what no encoder makes."""
        check_whole(self.networks.decode(planes, q, stream, mixed=True), q, stream)

    def choose_plane(self, planes: entropy.Planes, q: int, wanted: Wanted) -> None:
        """Fill plane q of uint32 [Q, rows, columns], contiguous, those before it being known, with
        codes that are near what is wanted and cheap.
        """
        self.networks.choose(planes, q, wanted)

    def _check_depth(self, count: int) -> None:
        if not 1 <= count <= len(self.codebook_sizes):
            raise ValueError(
                f"the prior is of {len(self.codebook_sizes)} codebooks, {count} are asked for"
            )

    def _planes(self, codes: NDArray[Any]) -> entropy.Planes:
        *dims, count = codes.shape
        if not 1 <= count <= len(self.codebook_sizes) or not dims or 0 in codes.shape:
            raise ValueError(
                f"codes have shape {list(codes.shape)}, expected [..., q] with q at most "
                f"{len(self.codebook_sizes)}"
            )
        planes = np.moveaxis(codes, -1, 0).reshape(count, *grid_of(dims))
        for q, plane in enumerate(planes):
            if plane.min() < 0 or plane.max() >= self.codebook_sizes[q]:
                raise ValueError(
                    f"codes of codebook {q} span [{plane.min()}, {plane.max()}], K is "
                    f"{self.codebook_sizes[q]}"
                )
        return np.ascontiguousarray(planes, np.uint32)


def _codes(planes: entropy.Planes, dims: Sequence[int]) -> NDArray[np.int64]:
    codes = np.moveaxis(planes, 0, -1).reshape(*dims, len(planes))
    return np.ascontiguousarray(codes, np.int64)


# --- Finding the prior that a dataset names ------------------------------------------------------

MAX_LOADED = 8
"""Priors that are kept for datasets yet to be opened; open ones keep their own."""

_loaded: dict[str, Prior] = {}


def bundled_priors() -> list[Path]:
    """The priors of the tokenizers that come with vqtok, and those that were theirs before."""
    root = Path(str(resources.files("vqtok") / "pretrained"))
    return sorted(root.glob("*/prior*.safetensors"))


def is_bundled(prior: Prior) -> bool:
    """Whether this prior comes with vqtok, so that a dataset need not hold it."""
    return any(_digest(path) == prior.digest for path in bundled_priors())


def find_prior(digest: str, folder: Path) -> Prior:
    """The prior of this digest, from the dataset ``folder`` or from those that come with vqtok.

    Raises DataError that names the prior that is wanted, and the one that is there instead.
    """
    prior = _loaded.get(digest)
    if prior is None:
        prior = _loaded[digest] = _read(digest, folder)
        if len(_loaded) > MAX_LOADED:
            _loaded.pop(next(iter(_loaded)), None)
    return prior


def _read(digest: str, folder: Path) -> Prior:
    own = folder / PRIOR
    for path in (own, *bundled_priors()):
        data = _contents(path)
        if hashlib.sha256(data).hexdigest() == digest:
            return Prior.from_bytes(data, str(path))
    there = "cannot be read" if own.exists() else "is not there"
    if _contents(own):
        there = f"is another, {_digest(own)[:12]}"
    raise DataError(
        f"{own} {there}; these codes need the prior {digest[:12]}: copy the {PRIOR} of "
        "their tokenizer, or of the dataset they came with, to that place"
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(_contents(path)).hexdigest()


def _contents(path: Path) -> bytes:
    """What a file holds, nothing if it cannot be read or is too large for a prior."""
    try:
        return path.read_bytes() if path.stat().st_size <= MAX_BYTES else b""
    except OSError:
        return b""
