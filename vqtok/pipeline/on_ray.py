"""Running the tasks of an encoding job on a Ray cluster.

Ray hands out task numbers, nothing else: plan, shards and their commits are ours, on a file system
that all nodes share.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from vqtok.errors import UsageError, VqtokError
from vqtok.pipeline.engines import MAX_DEATHS, Load, Progress, TaskRunner
from vqtok.pipeline.workspace import Workspace
from vqtok.tokens.notes import Notes


class OnRay:
    """A pool of Ray actors that take tasks as they come.

    Needs the extra ``ray``. Ray that runs in this process is used, else the cluster that
    ``RAY_ADDRESS`` names, else one is started on this machine. ``load`` makes the tokenizer in each
    actor. ``count`` actors (None: as many as the cluster's CPUs, or GPUs, hold) of ``threads`` CPUs
    each, and a GPU if ``gpu``. One that dies, or whose node does, is replaced and its task done
    again, up to ``MAX_DEATHS`` times.

    Raises UsageError when Ray is not installed.
    """

    def __init__(
        self,
        load: Load,
        count: int | None = None,
        workers: int = 1,
        threads: int = 1,
        gpu: bool = False,
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise UsageError(
                f"Ray cannot be imported ({error}): pip install 'vqtok[ray]'"
            ) from error
        self.ray: Any = ray
        self.load, self.count = load, count
        self.workers, self.threads, self.gpu = workers, threads, gpu

    def __call__(
        self, workspace: Workspace, tasks: Sequence[int], progress: Progress, notes: Notes
    ) -> None:
        ray, plan = self.ray, workspace.plan
        started = not ray.is_initialized()
        if started:
            ray.init(log_to_driver=False, logging_level="error")
        runner = ray.put(TaskRunner(self.load, workspace.out.resolve(), self.workers, self.threads))
        waiting, deaths = deque(tasks), Counter[int]()
        running: dict[Any, tuple[Any, int]] = {}  # what will be its result: actor, task
        free = [self._actor(runner) for _ in range(min(self._size(), len(tasks)))]
        try:
            while waiting or running:
                while waiting and free:
                    actor, task = free.pop(), waiting.popleft()
                    running[actor.run.remote(task)] = actor, task
                for result in ray.wait(list(running))[0]:
                    actor, task = running.pop(result)
                    try:
                        found = ray.get(result)
                    except ray.exceptions.RayActorError as error:
                        deaths[task] += 1
                        if deaths[task] == MAX_DEATHS:
                            raise VqtokError(
                                f"a Ray actor died {MAX_DEATHS} times over {plan.shard_name(task)}:"
                                f" {error}; the same command goes on from here"
                            ) from error
                        waiting.appendleft(task)
                        free.append(self._actor(runner))
                        continue
                    except ray.exceptions.RayTaskError as error:
                        raise _cause(error) from error
                    notes.update(found)
                    progress(len(plan.task_sources(task)))
                    free.append(actor)
        finally:
            for actor in [*free, *(actor for actor, _ in running.values())]:
                ray.kill(actor)
            if started:
                ray.shutdown()

    def _actor(self, runner: Any) -> Any:
        actor = self.ray.remote(num_cpus=self.threads, num_gpus=int(self.gpu))(_Actor)
        return actor.remote(runner)

    def _size(self) -> int:
        if self.count is not None:
            return self.count
        resources = self.ray.cluster_resources()
        size = int(resources.get("CPU", 1)) // self.threads
        if self.gpu:
            size = min(size, int(resources.get("GPU", 0)))
        return max(1, size)


class _Actor:
    def __init__(self, runner: TaskRunner) -> None:
        self.runner = runner

    def run(self, task: int) -> Notes:
        return self.runner.run(task)


def _cause(error: Any) -> Exception:
    """What went wrong in an actor: ours as it is, anything else with Ray's traceback."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, VqtokError | OSError) else RuntimeError(str(error))
