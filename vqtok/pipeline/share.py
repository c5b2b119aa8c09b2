"""Which tasks of a plan are this process's, where a launcher has started several."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from vqtok.errors import UsageError


@dataclass(frozen=True)
class Share:
    """Every ``size``-th task from the ``rank``-th on: each task is one process's, none padded.

    A plan does not depend on shares, so a job may go on with another number of processes.
    Raises ValueError unless 0 <= rank < size.
    """

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ValueError(f"rank {self.rank} is not in [0, {self.size})")

    def tasks(self, count: int) -> range:
        """The tasks of a plan of ``count`` that are this process's."""
        return range(self.rank, count, self.size)

    @classmethod
    def parse(cls, text: str) -> Share:
        """Read ``I/N`` (process I, from 0, of N) or ``all``; UsageError for anything else."""
        if text == "all":
            return cls()
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if match is None or not int(match[1]) < int(match[2]):
            raise UsageError(
                f"--share {text}: say I/N, for process I of N, counted from 0 (0/4 ... 3/4), or all"
            )
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Share:
        """What torchrun (RANK, WORLD_SIZE) or a SLURM array job (SLURM_ARRAY_TASK_*) says.

        Raises UsageError when it makes no sense.
        """
        if "RANK" in environment and "WORLD_SIZE" in environment:
            names, rank = "RANK and WORLD_SIZE", _count(environment, "RANK")
            size = _count(environment, "WORLD_SIZE")
        elif "SLURM_ARRAY_TASK_ID" in environment:
            names = "SLURM_ARRAY_TASK_ID, _MIN, _STEP and _COUNT"
            first = _count(environment, "SLURM_ARRAY_TASK_MIN")
            step = _count(environment, "SLURM_ARRAY_TASK_STEP", 1)
            rank, rest = divmod(_count(environment, "SLURM_ARRAY_TASK_ID") - first, max(step, 1))
            size = -1 if rest else _count(environment, "SLURM_ARRAY_TASK_COUNT")
        else:
            return cls()
        if not 0 <= rank < size:
            raise UsageError(
                f"the environment variables {names} do not say which of how many processes this "
                "is: say so with --share I/N, or --share all for everything"
            )
        return cls(rank, size)


def _count(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    if not re.fullmatch(r"\d{1,9}", text):
        raise UsageError(f"the environment variable {name} is {text!r}, not a number")
    return int(text)
