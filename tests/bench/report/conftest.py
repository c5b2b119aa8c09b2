from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def beside(name: str) -> ModuleType:
    """The module of this name beside this file."""
    full = f"bench_report_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, Path(__file__).with_name(f"{name}.py"))
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]


@pytest.fixture(scope="session")
def toys() -> ModuleType:
    """The module toy.py."""
    return beside("toy")


@pytest.fixture(scope="session")
def browsers() -> ModuleType:
    """The module browser.py."""
    return beside("browser")
