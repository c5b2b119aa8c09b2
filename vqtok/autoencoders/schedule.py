"""Numbers that change while training: the weight of a loss, the capacity of a bottleneck."""

from __future__ import annotations

import math
from collections.abc import Mapping

Schedule = float | Mapping[str, float]
"""A number, or ``{"start": a, "end": b, "steps": n}``: from a to b in a straight line over the
first n steps (after ``"delay"`` steps, if given), then b."""

_KEYS = {"start", "end", "steps", "delay"}


def check_schedule(name: str, schedule: Schedule) -> None:
    """ValueError unless ``schedule`` is one."""
    numbers = schedule.values() if isinstance(schedule, Mapping) else [schedule]
    if isinstance(schedule, Mapping) and not (
        {"start", "end", "steps"} <= schedule.keys() <= _KEYS and schedule["steps"] > 0
    ):
        raise ValueError(
            f"{name}: a schedule needs start, end and steps > 0 (and perhaps delay), "
            f"not {dict(schedule)}"
        )
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in numbers):
        raise ValueError(f"{name} must be a finite number or a schedule, not {schedule!r}")


def at_step(schedule: Schedule, step: int | None) -> float:
    """The value at a training step; at its end for None."""
    if not isinstance(schedule, Mapping):
        return schedule
    start, end = schedule["start"], schedule["end"]
    if step is None:
        return end
    progress = (step - schedule.get("delay", 0)) / schedule["steps"]
    return start + (end - start) * min(1.0, max(0.0, progress))
