"""Loads the compiled module and decides how it runs: instruction set and threads.

Environment:
    VQTOK_ISA: baseline, avx2, avx512, avx512vnni or amx forces one instruction set (the codes never
        depend on it).
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType

from vqtok.errors import UsageError

# Of the lookup; the codes never depend on it.
METHODS = ("auto", "float32", "filter", "tree", "split")
_forced_isa: str | None = None
_forced_method = "auto"


@cache
def load() -> ModuleType | None:
    """The native module, or None after one warning if it is missing or does not load."""
    try:
        return importlib.import_module("vqtok.ops._native")
    except ImportError as error:
        warnings.warn(
            f"vqtok runs without its native module, many times slower ({error}); "
            "build it with `pip install .` in a source checkout",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def native_available() -> bool:
    """Whether the compiled module is in use (if not, the reference gives the same results)."""
    return load() is not None


@cache
def supported_isas() -> tuple[str, ...]:
    """The instruction sets compiled in that this CPU can run, weakest first."""
    module = load()
    return tuple(module.isas()) if module is not None else ()


def isa() -> str:
    """The instruction set in use: the one forced, or the strongest supported.

    Raises:
        UsageError: VQTOK_ISA names one that is unknown or that this CPU lacks.
    """
    supported = supported_isas()
    wanted = _forced_isa or os.environ.get("VQTOK_ISA") or (supported[-1] if supported else "")
    if wanted not in supported and supported:
        raise UsageError(
            f"VQTOK_ISA={wanted!r}: this CPU and build offer {', '.join(supported)}; "
            "unset it to use the best"
        )
    return wanted


@contextmanager
def force_isa(name: str) -> Iterator[None]:
    """Runs the body with one instruction set, for tests and benchmarks."""
    global _forced_isa
    previous, _forced_isa = _forced_isa, name
    try:
        yield
    finally:
        _forced_isa = previous


@contextmanager
def force_method(name: str) -> Iterator[None]:
    """Runs the body with one method of the lookup, for tests and benchmarks."""
    global _forced_method
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}: choose one of {', '.join(METHODS)}")
    previous, _forced_method = _forced_method, name
    _apply_method()
    try:
        yield
    finally:
        _forced_method = previous
        _apply_method()


def _apply_method() -> None:
    module = load()
    if module is not None:
        module.force_method(METHODS.index(_forced_method))


def num_threads() -> int:
    """torch's thread count; 1 while torch is not imported.

    Without torch there is no setting to follow, and a forked worker must not start OpenMP threads
    that its parent had.
    """
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch is not None else 1
