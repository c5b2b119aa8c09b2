"""Jobs that several processes share: who does what, and that the bytes are the same."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from vqtok.cli import main
from vqtok.errors import UsageError
from vqtok.media import list_sources
from vqtok.pipeline import Share, encode_dataset, make_plan
from vqtok.pipeline.lock import Lock
from vqtok.pipeline.plan import Plan
from vqtok.pipeline.workspace import PLAN, WORK, open_workspace
from vqtok.tokens import verify


@pytest.mark.parametrize("size", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("count", [0, 1, 7, 10])
def test_every_task_is_in_one_share(size: int, count: int) -> None:
    shares = [Share(rank, size).tasks(count) for rank in range(size)]
    assert sorted(task for share in shares for task in share) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


SLURM = "SLURM_ARRAY_TASK_"


@pytest.mark.parametrize(
    ("environment", "rank", "size"),
    [
        ({}, 0, 1),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, 3, 8),
        ({"RANK": "3"}, 0, 1),
        ({f"{SLURM}ID": "0", f"{SLURM}MIN": "0", f"{SLURM}COUNT": "4"}, 0, 4),
        ({f"{SLURM}ID": "3", f"{SLURM}MIN": "1", f"{SLURM}MAX": "4", f"{SLURM}COUNT": "4"}, 2, 4),
        ({f"{SLURM}ID": "9", f"{SLURM}MIN": "1", f"{SLURM}STEP": "4", f"{SLURM}COUNT": "3"}, 2, 3),
        (
            {"RANK": "0", "WORLD_SIZE": "2", f"{SLURM}ID": "7", f"{SLURM}MIN": "0"},
            0,
            2,
        ),
    ],
)
def test_what_the_environment_says(environment, rank: int, size: int) -> None:
    assert Share.of_environment(environment) == Share(rank, size)


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "8", "WORLD_SIZE": "8"},
        {"RANK": "", "WORLD_SIZE": "8"},
        {"RANK": "-1", "WORLD_SIZE": "8"},
        {f"{SLURM}ID": "7", f"{SLURM}MIN": "3", f"{SLURM}COUNT": "2"},  # --array=3,7
        {f"{SLURM}ID": "6", f"{SLURM}MIN": "3", f"{SLURM}STEP": "2", f"{SLURM}COUNT": "2"},
        {f"{SLURM}ID": "7", f"{SLURM}COUNT": "2"},
    ],
)
def test_a_senseless_environment_is_refused(environment) -> None:
    with pytest.raises(UsageError, match=r"environment variable"):
        Share.of_environment(environment)


def test_a_share_by_hand() -> None:
    assert Share.parse("2/7") == Share(2, 7)
    assert Share.parse("all") == Share()
    for text in ("7/7", "1", "a/b", "-1/2", "0/0", "1/2/3", ""):
        with pytest.raises(UsageError, match="--share"):
            Share.parse(text)


@pytest.mark.parametrize("size", [2, 3, 6])
def test_shares_give_the_same_bytes(
    toy, photos, encoded, tmp_path, folder_contents, size: int
) -> None:
    """One after another, in any order; the last one makes the dataset."""
    tokenizer = toy.ToyTokenizer()
    plan = make_plan(list_sources(photos), tokenizer, shard_size=3)
    ranks = [*range(1, size), 0]
    seen: list[int] = []
    for rank in ranks:
        report = encode_dataset(
            plan, tokenizer, tmp_path / "out", share=Share(rank, size), progress=seen.append
        )
        assert (report.manifest is None) == (rank != 0)
    assert sum(seen) == 10
    assert folder_contents(tmp_path / "out") == folder_contents(encoded)
    again = encode_dataset(plan, tokenizer, tmp_path / "out", share=Share(1, size))
    assert again.already_done
    assert folder_contents(tmp_path / "out") == folder_contents(encoded)


def test_another_number_of_processes_goes_on(
    toy, photos, encoded, tmp_path, folder_contents
) -> None:
    tokenizer = toy.ToyTokenizer()
    plan = make_plan(list_sources(photos), tokenizer, shard_size=3)
    for share in (Share(2, 3), Share(1, 4), Share(0, 2)):
        assert encode_dataset(plan, tokenizer, tmp_path / "out", share=share).manifest is None
    seen: list[int] = []
    report = encode_dataset(plan, tokenizer, tmp_path / "out", progress=seen.append)
    assert seen == [9, 1]  # all but the last shard, of one input
    assert report.manifest is not None
    assert folder_contents(tmp_path / "out") == folder_contents(encoded)


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("size", [1, 2])
def test_another_plan_that_begins_meanwhile(
    toy, photos, tmp_path, monkeypatch, folder_contents, size: int, finished: bool
) -> None:
    """Between the look at the folder and the lock another process takes it."""
    tokenizer, out = toy.ToyTokenizer(), tmp_path / "out"
    plans = [make_plan(list_sources(photos), tokenizer, shard_size=size) for size in (3, 4)]
    take = Lock.take

    def late(lock: Lock, **options) -> bool:
        monkeypatch.setattr(Lock, "take", take)
        encode_dataset(plans[1], tokenizer, out, share=Share(0, 1 if finished else 2))
        return take(lock, **options)

    monkeypatch.setattr(Lock, "take", late)
    with pytest.raises(UsageError, match="that differs"):
        encode_dataset(plans[0], tokenizer, out, share=Share(1 % size, size))
    report = encode_dataset(plans[1], tokenizer, out)
    assert report.manifest is not None
    encode_dataset(plans[1], tokenizer, tmp_path / "alone")
    assert folder_contents(out) == folder_contents(tmp_path / "alone")


def test_shares_killed_at_random_moments(
    run_toy, photos, encoded, tmp_path, folder_contents
) -> None:
    run_toy(photos, tmp_path / "out", "ranks", 3, 12)
    assert folder_contents(tmp_path / "out") == folder_contents(encoded)


def test_a_crash_of_the_last_process_at_any_step(
    run_toy, photos, toy, tmp_path, folder_contents
) -> None:
    """While it encodes its share, while it merges, and after."""
    photos = photos / "day 0"
    toy.encode(str(photos), str(tmp_path / "undisturbed"), shard_size=4)
    wanted = folder_contents(tmp_path / "undisturbed")
    crashes = run_toy(photos, tmp_path / "out", "crash-last")["crashes"]
    assert crashes > 20
    for number in range(1, crashes + 2):
        assert folder_contents(tmp_path / f"out-{number}") == wanted, f"crash at step {number}"


def test_nobody_merges_while_others_work(toy, photos, tmp_path: Path) -> None:
    tokenizer = toy.ToyTokenizer()
    plan = make_plan(list_sources(photos), tokenizer)  # one task
    with open_workspace(tmp_path / "out", plan, shared=True) as other:
        report = encode_dataset(plan, tokenizer, tmp_path / "out", share=Share(0, 2))
        assert report.manifest is None
        assert other.missing() == 0
        assert other.merge_if_last() is not None
    assert verify(tmp_path / "out") == []


def test_a_lone_run_keeps_shares_out(toy, photos, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("vqtok.pipeline.workspace.MERGE_SECONDS", 0.1)
    plan = make_plan(list_sources(photos), toy.ToyTokenizer())
    with (
        open_workspace(tmp_path / "out", plan),
        pytest.raises(UsageError, match="another vqtok encode is writing"),
    ):
        encode_dataset(plan, toy.ToyTokenizer(), tmp_path / "out", share=Share(0, 2))


def test_the_command_line_takes_its_share(photos, tmp_path: Path, capsys, monkeypatch) -> None:
    source, out = str(photos / "day 1"), str(tmp_path / "out")
    command = ["encode", source, out, "--shard-size", "3", "--num-codebooks", "1", "--json"]
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == {"out": out, "share": [1, 2], "complete": False}
    assert main([*command, "--share", "0/2"]) == 1  # one input is bad
    assert json.loads(capsys.readouterr().out)["samples"] == 4
    assert verify(out) == []
    assert main([*command, "--share", "2/2"]) == 2


def test_of_plans_that_begin_at_once_one_is_taken(toy, photos, tmp_path) -> None:
    """Where there are no locks too: threads in step, each with another plan, then with the same."""
    tokenizer, found = toy.ToyTokenizer(), []
    start, together = threading.Barrier(4), threading.Barrier(4)

    def begin(plan: Plan, out: Path) -> None:
        start.wait()  # a barrier of its own: one may break the other before all have left this
        try:
            with open_workspace(out, plan, shared=True) as workspace:
                together.wait(timeout=20)  # nobody has left before all have looked
                found.append(workspace.plan.digest)
        except (UsageError, threading.BrokenBarrierError) as error:
            together.abort()
            found.append(type(error))

    sources = list_sources(photos)
    plans = [make_plan(sources, tokenizer, shard_size=size) for size in (2, 3, 4, 5)]
    for number in range(5):
        out = tmp_path / f"others-{number}"
        run_together(begin, [(plan, out) for plan in plans])
        written = Plan.load(out / WORK / PLAN).digest
        assert written in {plan.digest for plan in plans}
        assert UsageError in found
        together.reset()
        found.clear()
    run_together(begin, [(plans[0], tmp_path / "same")] * 4)
    assert found == [plans[0].digest] * 4


def run_together(work, arguments) -> None:
    threads = [threading.Thread(target=work, args=each) for each in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
