"""How much of an original's time goes into looking codes up, and into weight normalisation."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch


def shares(run: Callable[[], object], lookup: tuple[Any, str], rounds: int) -> dict[str, float]:
    """Shares of the processor time of ``run()``, medians of some rounds after one to warm up.

    ``lookup``: what holds the function that finds codes, and its name there.
    """
    found: dict[str, list[float]] = {"lookup": [], "weight norm": []}
    for index in range(rounds + 1):
        spent = dict.fromkeys(found, 0.0)
        with ExitStack() as stack:
            stack.enter_context(timed(*lookup, spent, "lookup"))
            stack.enter_context(timed(torch, "_weight_norm", spent, "weight norm"))
            began = time.process_time()
            run()
            took = time.process_time() - began
        if index:
            for kind, seconds in spent.items():
                found[kind].append(seconds / took)
    return {kind: statistics.median(values) for kind, values in found.items()}


@contextmanager
def timed(owner: Any, name: str, spent: dict[str, float], kind: str) -> Iterator[None]:
    """Adds up the processor time that calls of a function take."""
    function = getattr(owner, name)

    def call(*args: Any, **options: Any) -> Any:
        began = time.process_time()
        try:
            return function(*args, **options)
        finally:
            spent[kind] += time.process_time() - began

    setattr(owner, name, call)
    try:
        yield
    finally:
        setattr(owner, name, function)
