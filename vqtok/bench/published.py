"""Published curves of external codecs, from JSON files."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from vqtok.bench.metrics import METRICS
from vqtok.bench.results import Codec, Point
from vqtok.errors import DataError, UsageError
from vqtok.tokens.header import parse_json

BUNDLED = ("kodak",)
"""Files that come with vqtok: kodak, of VTM, BPG, AV1 and a learned codec."""


def load_published(name_or_path: str, modality: str, taken: Sequence[str]) -> list[Codec]:
    """The curves in a file, or in a bundled one.

    The file is a JSON object, or an array of such, as CompressAI's result files are:
    ``{"name": "VTM", "description": "...", "results": {"bpp": [...], "psnr": [...]}}``; "kbps"
    instead of "bpp" for sounds. Names of metrics are ours, with "-" for "_" and a final "-rgb"
    allowed; others (such as times) are passed over. ``taken``: names that curves must not have.

    Raises:
        UsageError: there is no such file.
        DataError: it is malformed.
    """
    path = Path(name_or_path)
    if name_or_path in BUNDLED and not path.exists():
        path = Path(str(resources.files("vqtok") / "bench" / "data" / f"{name_or_path}.json"))
    if not path.is_file():
        raise UsageError(
            f"{name_or_path}: no such file, nor one of the bundled ones ({', '.join(BUNDLED)})"
        )
    value = parse_json(path.read_bytes(), str(path))
    codecs: list[Codec] = []
    for entry in value if isinstance(value, list) else [value]:
        codec = _curve(entry, modality, str(path))
        if codec.name in [*taken, *(each.name for each in codecs)]:
            raise DataError(f"{path}: there is another codec of the name {codec.name!r}")
        codecs.append(codec)
    return codecs


def _curve(entry: Any, modality: str, where: str) -> Codec:
    rate_name = "bpp" if modality == "image" else "kbps"
    results = entry.get("results") if isinstance(entry, dict) else None
    if not isinstance(results, dict) or not isinstance(entry.get("name"), str) or not entry["name"]:
        raise DataError(f'{where}: a curve needs a "name" and "results"')
    where = f"{where}: {entry['name']}"
    if rate_name not in results:
        raise DataError(f"{where}: no {rate_name!r} among its results")
    rates = _numbers(results[rate_name], f"{where}: {rate_name}")
    if any(rate <= 0 for rate in rates):
        raise DataError(f"{where}: {rate_name} must be above 0")
    columns: dict[str, list[float]] = {}
    for key, values in results.items():
        name = key.replace("-", "_").removesuffix("_rgb")
        if name in METRICS[modality] and name not in columns:
            columns[name] = _numbers(values, f"{where}: {key}")
            if len(columns[name]) != len(rates):
                raise DataError(f"{where}: {key} has {len(columns[name])} values for {len(rates)}")
    if not columns:
        raise DataError(f"{where}: no metric that is known: {', '.join(METRICS[modality])}")
    points = [
        Point(
            setting=f"point {i + 1}",
            rate=rate,
            mean={name: values[i] for name, values in columns.items()},
        )
        for i, rate in enumerate(rates)
    ]
    description = entry.get("description")
    return Codec(
        name=entry["name"],
        kind="external",
        description="external, as published"
        + (f": {description}" if isinstance(description, str) and description else ""),
        points=tuple(sorted(points, key=lambda point: point.rate)),
    )


def _numbers(values: Any, where: str) -> list[float]:
    if not isinstance(values, list) or not values:
        raise DataError(f"{where}: expected an array of numbers")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e12:
            raise DataError(f"{where}: {value!r} is not a number that can be")
    return [float(value) for value in values]
