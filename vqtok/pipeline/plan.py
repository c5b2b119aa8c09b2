"""The plan of an encoding job: which inputs make which shard, and with what.

A plan depends on the inputs and on the options alone, not on where they lie, nor on the number of
workers or machines, so every one of them, at any time, means the same shards by the same numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vqtok.errors import DataError, UsageError
from vqtok.media.sources import Source
from vqtok.tokens.header import Header, dump_json, parse_json
from vqtok.tokens.prior import Prior

SHARD_SIZE = {"image": 1000, "audio": 100}
"""Inputs per shard unless said otherwise, by modality: what a killed run may have to do again."""


class PlannedTokenizer(Protocol):
    """What a plan needs to know of a tokenizer."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def modality(self) -> str: ...

    @property
    def codebook_sizes(self) -> tuple[int, ...]: ...

    @property
    def device(self) -> Any: ...

    @property
    def prior(self) -> Prior | None: ...


@dataclass(frozen=True)
class Plan:
    """Task i encodes inputs ``[i * shard_size, (i + 1) * shard_size)`` into shard i.

    ``device``: kind of device the model runs on ("cpu", "cuda"), since kinds may round differently,
    and in what precision ("cpu, bfloat16") if not float32.
    ``content``: SHA-256 of the inputs' fingerprints, so that others of the same names are noticed.
    ``reading``: how inputs are read, where that is a choice.
    """

    header: Header
    shard_size: int
    device: str
    sources: tuple[Source, ...]
    content: str
    reading: str = ""

    @property
    def num_tasks(self) -> int:
        """Number of tasks, and of shards."""
        return -(-len(self.sources) // self.shard_size)

    def task_sources(self, task: int) -> tuple[Source, ...]:
        """The inputs of a task."""
        return self.sources[task * self.shard_size : (task + 1) * self.shard_size]

    def shard_name(self, task: int) -> str:
        """File name of a task's shard."""
        return f"shard-{task:05d}.safetensors"

    @property
    def options(self) -> dict[str, Any]:
        """All but the inputs, as JSON."""
        options = {**self.header.to_json(), "shard_size": self.shard_size, "device": self.device}
        return {**options, "reading": self.reading} if self.reading else options

    @property
    def digest(self) -> str:
        """SHA-256 of the options and of the inputs' names and content, wherever they lie."""
        names = [source.uri for source in self.sources]
        portable = {**self.options, "sources": names, "content": self.content}
        return hashlib.sha256(dump_json(portable)).hexdigest()

    def to_bytes(self) -> bytes:
        """The plan file: everything that a worker elsewhere needs, as JSON."""
        sources = [source.to_json() for source in self.sources]
        inputs = {"content": self.content, "sources": sources}
        value = {**self.options, "digest": self.digest, **inputs}
        return json.dumps(value, separators=(",", ":")).encode("ascii")

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read a plan file; DataError when it is malformed."""
        value = parse_json(path.read_bytes(), str(path))
        header = Header.from_json(value, str(path))
        shard_size, device = value.get("shard_size"), value.get("device")
        sources, content = value.get("sources"), value.get("content")
        if type(shard_size) is not int or shard_size < 1 or not isinstance(device, str):
            raise DataError(f"{path}: shard_size {shard_size!r} or device {device!r} are malformed")
        if not isinstance(sources, list) or not all(isinstance(entry, dict) for entry in sources):
            raise DataError(f"{path}: sources are malformed")
        if not isinstance(content, str):
            raise DataError(f"{path}: content {content!r} is malformed")
        reading = value.get("reading", "")
        if not isinstance(reading, str):
            raise DataError(f"{path}: reading {reading!r} is malformed")
        inputs = tuple(map(Source.from_json, sources))
        plan = cls(header, shard_size, device, inputs, content, reading)
        if plan.digest != value.get("digest"):
            raise DataError(f"{path}: the plan is damaged (its digest does not match)")
        return plan


def make_plan(
    sources: Sequence[Source],
    tokenizer: PlannedTokenizer,
    *,
    num_codebooks: int | None = None,
    packing: str = "bits",
    shard_size: int | None = None,
    rate_weight: float = 0.0,
) -> Plan:
    """Plan to encode ``sources`` with the first ``num_codebooks`` codebooks of ``tokenizer``.

    ``packing``: "bits", "plain", or "entropy", which uses the prior of the tokenizer if it has one.
    ``rate_weight``: above 0, of "entropy" with a prior, for codes that take fewer bits, see
    ``Tokenizer.encode``. ``shard_size``: inputs per shard; by default :data:`SHARD_SIZE` of the
    modality.

    Raises UsageError for options that make no sense, and when there are no inputs.
    """
    sizes = tokenizer.codebook_sizes
    count = len(sizes) if num_codebooks is None else num_codebooks
    if not 1 <= count <= len(sizes):
        raise UsageError(
            f"num_codebooks is {count}, the tokenizer {tokenizer.name!r} has {len(sizes)}"
        )
    shard_size = SHARD_SIZE[tokenizer.modality] if shard_size is None else shard_size
    if shard_size < 1:
        raise UsageError(f"shard_size is {shard_size}, must be at least 1")
    if not sources:
        raise UsageError("there is nothing to encode")
    prior = tokenizer.prior if packing == "entropy" else None
    if rate_weight and packing != "entropy":
        raise UsageError(
            f"rate_weight is of the packing 'entropy', {packing!r} takes as many bits for any code"
        )
    if rate_weight and prior is None:
        raise UsageError(
            f"rate_weight counts bits by a prior, and the tokenizer {tokenizer.name!r} has none: "
            "make one with vqtok train-prior"
        )
    try:
        header = Header(
            tokenizer=tokenizer.fingerprint,
            tokenizer_name=tokenizer.name,
            codebook_sizes=tuple(sizes[:count]),
            modality=tokenizer.modality,
            packing=packing,
            prior="" if prior is None else prior.digest,
            rate_weight=rate_weight,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    device = str(getattr(tokenizer.device, "type", tokenizer.device))
    precision = getattr(tokenizer, "precision", "float32")
    if precision != "float32":
        device += f", {precision}"
    fingerprints = "\n".join(source.fingerprint() for source in sources)
    content = hashlib.sha256(fingerprints.encode("ascii")).hexdigest()
    reading = getattr(tokenizer, "reading", "")
    return Plan(header, shard_size, device, tuple(sources), content, reading)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """How two sets of options differ, as phrases such as "packing 'bits' instead of 'plain'".

    Of another tokenizer its name and kind say enough.
    """
    if old.get("tokenizer") != new.get("tokenizer"):
        return [f"tokenizer {_tokenizer(new)} instead of {_tokenizer(old)}"]
    old, new = ({"rate_weight": 0.0, **options} for options in (old, new))
    return [
        f"{key} {new[key]!r} instead of {old[key]!r}"
        for key in old
        if key in new and old[key] != new[key]
    ]


def _tokenizer(options: Mapping[str, Any]) -> str:
    name, fingerprint = options.get("tokenizer_name"), str(options.get("tokenizer"))
    return f"{name!r} ({options.get('modality')}, {fingerprint[:12]})"
