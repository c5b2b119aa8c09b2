"""Who runs the tasks of an encoding job: this process, or several on this machine.

Tasks may run more than once (a process that died is replaced), each shard is there exactly once:
it takes its name when it is complete, and its bytes are the same whoever made it.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import socket
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vqtok.errors import UsageError, VqtokError
from vqtok.pipeline.arrays import ForeignCodes
from vqtok.pipeline.plan import Plan
from vqtok.pipeline.task import encode_task, read_samples
from vqtok.pipeline.workspace import PLAN, WORK, Workspace
from vqtok.tokens.notes import Notes

if TYPE_CHECKING:
    from vqtok.tokenizer import Tokenizer

Progress = Callable[[int], object]
Load = Callable[[], "Tokenizer | ForeignCodes"]

MAX_DEATHS = 3
"""Times that a process may die over the same task before the job gives up."""

_PR_SET_PDEATHSIG = 1


class Engine(Protocol):
    """Something that runs tasks."""

    def __call__(
        self, workspace: Workspace, tasks: Sequence[int], progress: Progress, notes: Notes
    ) -> None:
        """Run ``tasks``; report inputs to ``progress`` and what was noted on them to ``notes``."""


class Here:
    """This process. Inputs of the next task are read while the model is at the last ones."""

    def __init__(self, tokenizer: Tokenizer | ForeignCodes, workers: int) -> None:
        self.tokenizer = tokenizer
        self.workers = workers

    def __call__(
        self, workspace: Workspace, tasks: Sequence[int], progress: Progress, notes: Notes
    ) -> None:
        plan = workspace.plan
        inputs = (source for task in tasks for source in plan.task_sources(task))
        with closing(read_samples(inputs, self.tokenizer, plan, self.workers)) as samples:
            for task in tasks:
                encode_task(workspace, task, self.tokenizer, samples, progress, notes)


class TaskRunner:
    """What a process elsewhere keeps between tasks: the plan and the tokenizer, loaded once.

    ``load`` makes the tokenizer there. ``threads``: of the model; ``workers``: of reading.
    """

    def __init__(self, load: Load, out: Path, workers: int, threads: int) -> None:
        self.load, self.out = load, out
        self.workers, self.threads = workers, threads
        self.here: tuple[Workspace, Here] | None = None

    def run(self, task: int) -> Notes:
        """Make the shard of ``task``; returns what was noted on its inputs."""
        if self.here is None:
            self.here = self._begin()
        workspace, here = self.here
        notes = Notes()
        here(workspace, [task], lambda count: None, notes)
        return notes

    def _begin(self) -> tuple[Workspace, Here]:
        import torch

        torch.set_num_threads(self.threads)
        try:
            plan = Plan.load(self.out / WORK / PLAN)
        except FileNotFoundError as error:
            raise UsageError(
                f"{self.out} is not there on {socket.gethostname()}: the output folder must be on "
                "a file system that all machines share"
            ) from error
        tokenizer = self.load()
        if tokenizer.fingerprint != plan.header.tokenizer:
            raise UsageError(
                f"the tokenizer {tokenizer.name!r} changed while the job ran: its fingerprint is "
                f"{tokenizer.fingerprint[:12]}, the plan says {plan.header.tokenizer[:12]}"
            )
        return Workspace(self.out, plan), Here(tokenizer, self.workers)


class Processes:
    """``count`` processes on this machine that take tasks as they come.

    One that dies is replaced and its task done again, up to :data:`MAX_DEATHS` times. They die
    with this process, however that ends.
    """

    def __init__(self, load: Load, count: int, workers: int = 1, threads: int = 1) -> None:
        self.load, self.count = load, count
        self.workers, self.threads = workers, threads

    def __call__(
        self, workspace: Workspace, tasks: Sequence[int], progress: Progress, notes: Notes
    ) -> None:
        runner = TaskRunner(self.load, workspace.out, self.workers, self.threads)
        waiting, deaths = deque(tasks), Counter[int]()
        children: dict[Connection, _Child] = {}
        try:
            while waiting or children:
                while waiting and len(children) < self.count:
                    child = _Child(runner)
                    children[child.connection] = child
                    child.begin(waiting.popleft())
                for connection in wait(list(children)):
                    assert isinstance(connection, Connection)
                    child = children[connection]
                    result = child.result()
                    if result is None:
                        del children[connection]
                        deaths[child.task] += 1
                        if deaths[child.task] == MAX_DEATHS:
                            raise VqtokError(_died(workspace.plan, child))
                        waiting.appendleft(child.task)
                        continue
                    progress(len(workspace.plan.task_sources(child.task)))
                    notes.update(result)
                    if waiting:
                        child.begin(waiting.popleft())
                    else:
                        del children[connection]
                        child.end()
        finally:
            for child in children.values():
                child.end()


class _Child:
    """A process, the pipe to it, and the task it is at."""

    def __init__(self, runner: TaskRunner) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_serve, args=(runner, other, os.getpid()), daemon=True
        )
        self.process.start()
        other.close()
        self.task = -1

    def begin(self, task: int) -> None:
        self.task = task
        with suppress(OSError):  # it has died; result() says so
            self.connection.send(task)

    def result(self) -> Notes | None:
        """What it noted; None when it died. Raises what went wrong there."""
        try:
            result: Notes | Exception = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            self.connection.close()
            return None
        if isinstance(result, Exception):
            raise result
        return result

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(runner: TaskRunner, connection: Connection, parent: int) -> None:
    """Run the tasks that come through the pipe until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this one
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    while True:
        try:
            task: int = connection.recv()
        except EOFError:
            return
        try:
            answer: Any = runner.run(task)
        except Exception as error:
            answer = error if isinstance(error, (VqtokError, OSError)) else _wrapped(error)
        connection.send(answer)


def _wrapped(error: Exception) -> RuntimeError:
    """An error of ours, which may not travel, with its traceback as text."""
    import traceback

    return RuntimeError("".join(traceback.format_exception(error)))


def _died(plan: Plan, child: _Child) -> str:
    code = child.process.exitcode or 0
    how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
    sources = plan.task_sources(child.task)
    return (
        f"a process died {how}, {MAX_DEATHS} times over {plan.shard_name(child.task)} (inputs "
        f"{sources[0].uri} to {sources[-1].uri}): is there enough memory? Fewer --processes need "
        "less; the same command goes on from here"
    )
