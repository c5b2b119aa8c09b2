"""Packages that only some metrics and formats need."""

from __future__ import annotations

import warnings
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from vqtok.errors import UsageError


def missing(package: str, module: str) -> str | None:
    """How to install ``module`` where it is not installed, else None."""
    return None if find_spec(module) else f'pip install "{package}" (or "vqtok[bench]")'


def need(package: str, module: str, what: str) -> ModuleType:
    """Import ``module`` of the PyPI package ``package``; UsageError with the pip line if absent."""
    hint = missing(package, module)
    if hint:
        raise UsageError(f"{what} needs {module}: {hint}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other people's packages
        return import_module(module)
