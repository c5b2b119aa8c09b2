"""What all samples of a dataset have in common: the header of FORMAT.md."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vqtok.errors import DataError

FORMAT = "vqtok.tokens"
FORMAT_VERSION = 2
SMALL_VERSION = 2
"""From this version on a prior is mixed with what the sample shows, one tensor of a shard holds the
whole index, and the header's keys stand beside each other in ``__metadata__``."""
DIMS = {"image": ("h", "w"), "audio": ("t", "c")}
PACKINGS = ("plain", "bits", "entropy")
MAX_CODEBOOK_SIZE = 1 << 32
MAX_CODED_SIZE = 1 << 20
"""Largest codebook that the packing "entropy" takes."""
MAX_RATE_WEIGHT = 100.0

_TEXTS = ("tokenizer", "tokenizer_name", "modality", "packing", "prior")
_DIGEST = re.compile("([0-9a-f]{64})?")


@dataclass(frozen=True, kw_only=True)
class Header:
    """The header of a shard and of a dataset.

    ``tokenizer``: fingerprint of the tokenizer that made the codes. ``tokenizer_name``: what a
    person calls it. ``codebook_sizes``: K of each codebook, each in [1, 2**32]. ``modality``:
    "image" or "audio". ``packing``: "plain", "bits" or "entropy". ``dims``: names of the axes of a
    sample's codes without the codebook axis; by default those of the modality. ``prior``: of the
    packing "entropy", SHA-256 of the prior that the codes were coded with, in hexadecimal, "" where
    it was the adaptive model. ``rate_weight``: what a bit was worth when the codes were chosen, in
    [0, 100]: see ``Tokenizer.encode``; 0 where they are the nearest ones. ``format_version``: 1 or
    2, by default 2 where there is a prior and 1, which every vqtok reads, elsewhere.

    Raises ValueError when a field has no meaning in this format version.
    """

    tokenizer: str
    tokenizer_name: str
    codebook_sizes: tuple[int, ...]
    modality: str = "image"
    packing: str = "plain"
    dims: tuple[str, ...] = ()
    prior: str = ""
    rate_weight: float = 0.0
    format_version: int = 0

    def __post_init__(self) -> None:
        version = self.format_version or (SMALL_VERSION if self.prior else 1)
        if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
            raise ValueError(
                f"token format version {version!r} is not readable by this vqtok (it knows "
                f"versions up to {FORMAT_VERSION}): install a newer vqtok"
            )
        object.__setattr__(self, "format_version", version)
        for name in ("tokenizer", "tokenizer_name"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be a string, got {getattr(self, name)!r}")
        if self.modality not in DIMS:
            raise ValueError(f"modality must be one of {tuple(DIMS)}, got {self.modality!r}")
        if self.packing not in PACKINGS:
            raise ValueError(f"packing must be one of {PACKINGS}, got {self.packing!r}")
        object.__setattr__(self, "codebook_sizes", tuple(self.codebook_sizes))
        if not self.codebook_sizes or not all(_is_size(k) for k in self.codebook_sizes):
            raise ValueError(
                f"codebook_sizes must be integers in [1, 2**32], got {self.codebook_sizes!r}"
            )
        if self.packing == "entropy" and max(self.codebook_sizes) > MAX_CODED_SIZE:
            raise ValueError(
                f"packing 'entropy' takes codebooks of up to {MAX_CODED_SIZE} codes, got "
                f"{max(self.codebook_sizes)}: choose 'bits'"
            )
        if not (isinstance(self.prior, str) and _DIGEST.fullmatch(self.prior)):
            raise ValueError(f"prior must be a SHA-256 or '', got {self.prior!r}")
        if self.prior and self.packing != "entropy":
            raise ValueError(f"packing {self.packing!r} has no prior, got {self.prior!r}")
        weight = self.rate_weight
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ValueError(f"rate_weight must be a number, got {weight!r}")
        if not 0 <= weight <= MAX_RATE_WEIGHT:
            raise ValueError(f"rate_weight must be in [0, {MAX_RATE_WEIGHT:g}], got {weight!r}")
        object.__setattr__(self, "rate_weight", float(weight))
        object.__setattr__(self, "dims", tuple(self.dims) or DIMS[self.modality])
        if not all(isinstance(name, str) and name for name in self.dims):
            raise ValueError(f"dims must be names of axes, got {self.dims!r}")

    @property
    def num_codebooks(self) -> int:
        """Q, the size of the last axis of a sample's codes."""
        return len(self.codebook_sizes)

    @property
    def bits_per_code(self) -> tuple[int, ...]:
        """Fixed-width bits of a code of each codebook: ceil(log2 K), and 1 for K = 1."""
        return tuple(max(1, (size - 1).bit_length()) for size in self.codebook_sizes)

    def to_json(self) -> dict[str, Any]:
        """The JSON object of FORMAT.md, section "Header"."""
        return {
            "format": FORMAT,
            "format_version": self.format_version,
            "tokenizer": self.tokenizer,
            "tokenizer_name": self.tokenizer_name,
            "codebook_sizes": list(self.codebook_sizes),
            "modality": self.modality,
            "packing": self.packing,
            "dims": list(self.dims),
            **({"prior": self.prior} if self.packing == "entropy" else {}),
            **({"rate_weight": self.rate_weight} if self.rate_weight else {}),
        }

    def to_metadata(self) -> dict[str, str]:
        """The entries of ``__metadata__`` in a shard."""
        value = self.to_json()
        if self.format_version < SMALL_VERSION:
            return {"vqtok": dump_json(value).decode()}
        if self.dims == DIMS[self.modality]:
            del value["dims"]
        entries = {value.pop("format"): str(value.pop("format_version"))}
        return entries | {
            key: entry if key in _TEXTS else dump_json(entry).decode()
            for key, entry in value.items()
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], where: str) -> Header:
        """Read what :meth:`to_metadata` wrote; ``where`` names the file in a DataError."""

        def parsed(key: str) -> Any:
            return parse_json(metadata[key].encode("utf-8", "replace"), f"{where}: {key}")

        if not all(isinstance(entry, str) for entry in metadata.values()):
            raise DataError(f"{where}: an entry of __metadata__ is not text")
        if "vqtok" in metadata:
            return cls.from_json(parsed("vqtok"), where)
        if FORMAT not in metadata:
            raise DataError(f"{where}: not a vqtok token file (its __metadata__ do not say so)")
        others = [key for key in ("codebook_sizes", "dims", "rate_weight") if key in metadata]
        value = {
            "format": FORMAT,
            "format_version": parsed(FORMAT),
            "dims": list(DIMS.get(metadata.get("modality", ""), ("?",))),
            **{key: metadata[key] for key in _TEXTS if key in metadata},
            **{key: parsed(key) for key in others},
        }
        return cls.from_json(value, where)

    @classmethod
    def from_json(cls, value: object, where: str) -> Header:
        """Read a header; ``where`` names the file in the DataError of a wrong one."""
        if not isinstance(value, Mapping) or value.get("format") != FORMAT:
            raise DataError(f"{where}: not a vqtok token file (no {FORMAT!r} header)")
        fields = ["format_version", "tokenizer", "tokenizer_name", "modality", "packing"]
        if value.get("packing") == "entropy":
            fields.append("prior")
        try:
            sizes, dims = value["codebook_sizes"], value["dims"]
            if not (isinstance(sizes, list) and isinstance(dims, list) and sizes and dims):
                raise ValueError("codebook_sizes and dims must be non-empty lists")
            if not value["format_version"]:
                raise ValueError("there is no format version 0")
            return cls(
                codebook_sizes=tuple(sizes),
                dims=tuple(dims),
                rate_weight=value.get("rate_weight", 0.0),
                **{name: value[name] for name in fields},
            )
        except KeyError as error:
            raise DataError(f"{where}: the header lacks {error}") from error
        except (ValueError, TypeError) as error:
            raise DataError(f"{where}: {error}") from error


def _is_size(value: object) -> bool:
    return type(value) is int and 1 <= value <= MAX_CODEBOOK_SIZE


def parse_json(data: bytes, where: str) -> Any:
    """Strict JSON: UTF-8, no repeated keys, no NaN; DataError naming ``where`` otherwise."""
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON ({error})") from error


def dump_json(value: object) -> bytes:
    """Compact JSON as UTF-8; text that UTF-8 cannot hold (lone surrogates) is escaped.

    Raises ValueError for NaN and infinities, TypeError for what JSON cannot hold.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is repeated")
    return result


def _constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
