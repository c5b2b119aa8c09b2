"""Encoding on Ray: one cluster of this machine for the module."""

from __future__ import annotations

from pathlib import Path

import pytest

from vqtok.errors import UsageError, VqtokError
from vqtok.media import list_sources
from vqtok.pipeline import make_plan
from vqtok.pipeline.engines import TaskRunner
from vqtok.pipeline.on_ray import OnRay, _Pool
from vqtok.tokens.notes import Notes

pytest.importorskip("ray", reason="extra ray")


def test_killed_actors_are_replaced(
    run_toy, photos, encoded, tmp_path, folder_contents, monkeypatch
) -> None:
    """A job of three actors of which two find room; the first one to encode gets SIGKILL."""
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 2}')
    assert run_toy(photos, tmp_path / "out", "ray", 3, 1) == {"kills": 1}
    assert folder_contents(tmp_path / "out") == folder_contents(encoded)


class NoRoom:
    """A Ray whose actors never begin."""

    def wait(self, ids, timeout):
        assert timeout is not None
        return [], ids

    def cluster_resources(self):
        return {"CPU": 1.0}

    available_resources = cluster_resources

    def kill(self, actor) -> None:
        actor.killed = True


class NeverActor:
    killed = False

    @property
    def begin(self):
        return self

    def remote(self):
        return id(self)


def test_a_cluster_without_room(toy, photos) -> None:
    plan = make_plan(list_sources(photos), toy.ToyTokenizer())
    actors = [NeverActor(), NeverActor()]
    pool = _Pool(NoRoom(), iter(actors).__next__, plan)
    with pytest.raises(VqtokError, match="no Ray actor could start within"):
        pool.run(range(2), 2, lambda count: None, Notes())
    assert all(actor.killed for actor in actors)


def test_a_folder_that_is_not_shared(toy, tmp_path) -> None:
    runner = TaskRunner(toy.ToyTokenizer, tmp_path / "elsewhere", 1, 1)
    with pytest.raises(UsageError, match="must be on a file system that all machines share"):
        runner.run(0)


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'vqtok\[ray\]'"):
        OnRay(Path)
