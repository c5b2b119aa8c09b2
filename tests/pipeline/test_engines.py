"""Processes that take tasks as they come; those that die are replaced."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from vqtok.cli import main
from vqtok.errors import UsageError
from vqtok.media import list_sources
from vqtok.pipeline import Processes, make_plan
from vqtok.pipeline.engines import TaskRunner
from vqtok.pipeline.workspace import open_workspace
from vqtok.tokens import verify
from vqtok.tokens.notes import Notes


def test_killed_processes_are_replaced(run_toy, photos, encoded, tmp_path, folder_contents) -> None:
    """Two processes, one killed in the middle of a shard; its task is done again."""
    assert run_toy(photos, tmp_path / "out", "processes", 2, 1) == {"kills": 1}
    assert folder_contents(tmp_path / "out") == folder_contents(encoded)


def test_a_task_that_kills_every_time_ends_the_job(
    run_toy, photos, toy, encoded, tmp_path, folder_contents
) -> None:
    error = run_toy(photos, tmp_path / "out", "processes", 1, 99)["error"]
    assert "died by signal 9, 3 times over shard-00000.safetensors" in error
    assert "day 0/bad.png to " in error
    toy.encode(str(photos), str(tmp_path / "out"))
    assert folder_contents(tmp_path / "out") == folder_contents(encoded)


def test_errors_come_back(toy, photos, tmp_path: Path) -> None:
    load = partial(int, "x")
    with pytest.raises(RuntimeError, match=r"Traceback .*\n(.*\n)*ValueError: invalid literal"):
        toy.encode(str(photos), str(tmp_path / "out"), engine=Processes(load, 1))


def test_a_worker_checks_its_tokenizer(toy, photos, tmp_path: Path) -> None:
    tokenizer = toy.ToyTokenizer()
    plan = make_plan(list_sources(photos), tokenizer)
    other = partial(SimpleNamespace, name="other", fingerprint="99")
    with open_workspace(tmp_path / "out", plan) as workspace:
        with pytest.raises(UsageError, match="the tokenizer 'other' changed while the job ran"):
            TaskRunner(other, workspace.out, 1, torch.get_num_threads()).run(0)
        assert workspace.missing() == 1
        TaskRunner(toy.ToyTokenizer, workspace.out, 1, torch.get_num_threads()).run(0)
        assert workspace.missing() == 0


def test_processes_of_the_command_line(photos, tmp_path: Path, capsys) -> None:
    command = ["encode", str(photos / "day 1"), str(tmp_path / "out"), "--shard-size", "3"]
    assert main([*command, "--processes", "3", "--num-codebooks", "1"]) == 1  # one input is bad
    output = capsys.readouterr()
    assert "4 samples in 2 shards" in output.out
    assert "2 shards for 3 processes" in output.err
    assert verify(tmp_path / "out") == []


def test_processes_die_with_their_parent(photos, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vqtok", "encode", str(photos), str(tmp_path / "out")]
    job = subprocess.Popen([*command, "--processes", "2"])
    try:
        end = time.monotonic() + 60
        while len(children := psutil.Process(job.pid).children(recursive=True)) < 2:
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        job.send_signal(signal.SIGKILL)
        job.wait()
    gone, alive = psutil.wait_procs(children, timeout=30)
    assert gone
    assert not alive


def test_notes_add_up() -> None:
    first, second = Notes(), Notes()
    first.add({"source": "a", "notes": ["x", "y"]})
    second.add({"source": "b", "notes": ["y", "z"]})
    first.update(second)
    assert first.found == {"x": (1, "a"), "y": (2, "a"), "z": (1, "b")}


def test_interrupting_ends_the_processes(photos, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vqtok", "encode", str(photos), str(tmp_path / "out")]
    job = subprocess.Popen([*command, "--processes", "2"], stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while len(children := psutil.Process(job.pid).children(recursive=True)) < 2:
        assert time.monotonic() < end
        time.sleep(0.01)
    job.send_signal(signal.SIGINT)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 130
    assert "interrupted; run the same command again" in errors
    assert "Traceback" not in errors
    assert not psutil.wait_procs(children, timeout=30)[1]
