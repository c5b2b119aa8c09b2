"""What every script has in common, by its text: few run in the tests as a whole."""

from __future__ import annotations

import ast
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.py")), ids=lambda path: path.name)
def test_imports_from_vqtok(script: Path) -> None:
    missing = []
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("vqtok"):
            continue
        assert node.module is not None
        module = import_module(node.module)
        for alias in node.names:
            submodule = f"{node.module}.{alias.name}"
            if hasattr(module, alias.name):
                continue
            if not hasattr(module, "__path__") or find_spec(submodule) is None:
                missing.append(submodule)
    assert not missing


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.py")), ids=lambda path: path.name)
def test_no_traceback_after_ctrl_c(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    if "def main()" in text and not script.name.startswith("bench_importers"):
        assert text.endswith('if __name__ == "__main__":\n    sys.exit(exit_code(main))\n')
