"""What ``vqtok bench`` prints."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqtok.cli.common import NOUNS, plural

if TYPE_CHECKING:
    from vqtok.bench.results import Codec, Results


def summary_json(results: Results, out: Path) -> dict[str, Any]:
    """The means of each point, without what is per sample."""
    return {
        "out": str(out),
        "modality": results.modality,
        "samples": len(results.samples),
        "common": len(results.common),
        "anchor": results.anchor,
        "codecs": [
            {
                "name": codec.name,
                "kind": codec.kind,
                "points": [
                    {
                        "setting": point.setting,
                        results.rate_unit: point.rate,
                        **point.mean,
                        "encode_seconds": point.encode_seconds,
                        "decode_seconds": point.decode_seconds,
                        "peak_memory_bytes": point.peak_memory_bytes,
                    }
                    for point in codec.points
                ],
            }
            for codec in results.codecs
        ],
        "bd": [asdict(each) for each in results.bd],
        "failed": [asdict(each) for each in results.failed],
        "notes": list(results.notes),
    }


def summary_lines(results: Results) -> list[str]:
    """A table of all points, and one of the deltas by the first metric."""
    names = [metric.name for metric in results.metrics]
    width = max(len(codec.name) for codec in results.codecs) + 2
    settings = max(len(p.setting) for codec in results.codecs for p in codec.points) + 2
    heads = "".join(f"{name:>12}" for name in names)
    lines = [
        f"{plural(len(results.common), NOUNS[results.modality])}: means",
        f"{'codec':{width}}{'setting':{settings}}{results.rate_unit:>8}{heads}",
    ]
    for codec in results.codecs:
        for point in codec.points:
            cells = "".join(f"{_cell(point.mean.get(name)):>12}" for name in names)
            label = _label(codec)
            lines.append(f"{label:{width}}{point.setting:{settings}}{point.rate:8.4f}{cells}")
    if results.bd:
        first = names[0]
        unit = results.metrics[0].unit
        lines.append(f"against {results.anchor}, by {first}:")
        for each in results.bd:
            if each.metric == first:
                rate = "" if each.rate_percent is None else f"{each.rate_percent:+.1f}% rate"
                gain = "" if each.quality is None else f"{each.quality:+.2f} {unit}"
                lines.append(
                    f"  {each.codec:{width}}{rate:>14}{gain:>14}  {each.note or ''}".rstrip()
                )
    lines += [f"note: {note}" for note in results.notes]
    return lines


def _label(codec: Codec) -> str:
    return f"{codec.name}*" if codec.kind == "external" else codec.name


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
