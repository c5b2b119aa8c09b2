"""Encoding on Ray: one cluster of this machine for the module."""

from __future__ import annotations

from pathlib import Path

import pytest

from vqtok.errors import UsageError
from vqtok.pipeline.on_ray import OnRay

pytest.importorskip("ray", reason="extra ray")


def test_killed_actors_are_replaced(run_toy, photos, encoded, tmp_path, folder_contents) -> None:
    """A job of two actors; the first one to encode is killed with SIGKILL."""
    assert run_toy(photos, tmp_path / "out", "ray", 2, 1) == {"kills": 1}
    assert folder_contents(tmp_path / "out") == folder_contents(encoded)


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'vqtok\[ray\]'"):
        OnRay(Path)
