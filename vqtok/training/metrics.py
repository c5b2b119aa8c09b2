"""Metrics of a run as JSON lines."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vqtok.files import atomic_write, naming

METRICS_NAME = "metrics.jsonl"


def append_line(folder: Path, line: Mapping[str, Any]) -> None:
    """Add a line to the log of a run."""
    path = folder / METRICS_NAME
    with naming(path), open(path, "a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


def forget_after(folder: Path, step: int) -> None:
    """Drop the lines of steps after ``step``: they will be run again."""
    path = folder / METRICS_NAME
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    with atomic_write(path) as file:
        file.writelines(f"{line}\n".encode() for line in lines if _line_step(line) <= step)


def _line_step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def as_json(value: Tensor | float) -> Any:
    """Numbers of six digits: a float, or a tensor's as nested in it."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    numbers = [float(f"{number:.6g}") for number in value.flatten().tolist()]
    return numbers if value.ndim else numbers[0]


def summary(line: Mapping[str, Any], unit: str) -> str:
    """What the progress bar shows of a line; ``unit`` is what the samples are, in the plural."""
    text = f"loss {line['loss']:.4g}, {line['samples_per_second']:.0f} {unit}/s"
    if "perplexity" in line:
        text += ", perplexity " + " ".join(f"{value:.0f}" for value in line["perplexity"])
    return text
