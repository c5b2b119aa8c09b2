"""Imports run one way, and importing the package or its token files loads no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "vqtok"

# A module may import modules of a lower rank. Of its own rank, only itself.
RANKS = {
    "_version": 0,
    "errors": 0,
    "files": 0,
    "ops": 1,
    "quantizers": 2,
    "nn": 3,
    "autoencoders": 4,
    "media": 4,
    "tokens": 4,
    "tokenizer": 5,
    "token_stream": 5,
    "importers": 6,
    "training": 7,
    "pipeline": 7,
    "bench": 8,
    "exporters": 8,
    "estimator": 9,
    "cli": 9,
    "__main__": 10,
}
# Readers of files must not load a model.
LEAF = {part: {"errors", "files", "ops", "_version"} for part in ("media", "tokens")}
# What is only data.
DATA = {"pretrained", "samples"}


def sources() -> list[Path]:
    return [p for p in sorted(PACKAGE.rglob("*.py")) if p != PACKAGE / "__init__.py"]


def part_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported_parts(path: Path) -> Iterator[tuple[int, str]]:
    """(line, part) of every import of vqtok in a file, under TYPE_CHECKING too."""
    package = ["vqtok", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            pieces = name.split(".")
            if pieces[0] == "vqtok" and len(pieces) > 1:
                yield node.lineno, pieces[1]


def violations(path: Path) -> list[str]:
    part = part_of(path)
    found = []
    for line, imported in imported_parts(path):
        if imported == part or imported in DATA or imported == "__version__":
            continue
        allowed = imported in RANKS and RANKS[imported] < RANKS[part]
        if part in LEAF:
            allowed = imported in LEAF[part]
        if not allowed:
            found.append(f"{path.relative_to(PACKAGE.parent)}:{line}: {part} imports {imported}")
    return found


def test_every_part_has_a_rank() -> None:
    assert {part_of(path) for path in sources()} - DATA <= RANKS.keys()


def test_imports_run_one_way() -> None:
    found = [v for path in sources() if part_of(path) not in DATA for v in violations(path)]
    assert not found, "\n".join(found)


def test_a_violation_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "vqtok")
    for name, line in {
        "quantizers": "from vqtok.nn import conv",
        "tokens": "from ..tokenizer import Tokenizer",
        "media": "import vqtok.quantizers.vector",
        "ops": "from vqtok import cli",
    }.items():
        folder = tmp_path / "vqtok" / name
        folder.mkdir(parents=True)
        (folder / "module.py").write_text(line + "\n")
        assert len(violations(folder / "module.py")) == 1, name


@pytest.mark.parametrize(
    "statement",
    [
        "import vqtok",
        "import vqtok; vqtok.__version__",
        "from vqtok import ops; ops.native_available()",
        "from vqtok import SequenceLayout, TokenDataset, TokenSource, Vocabulary",
        "import vqtok.exporters",
        "from vqtok.ops import bits; import numpy; bits.pack(numpy.arange(9), 4)",
    ],
)
def test_torch_stays_out(statement: str) -> None:
    code = f"{statement}\nimport sys\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
