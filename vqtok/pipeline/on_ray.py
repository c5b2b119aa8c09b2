"""Running the tasks of an encoding job on a Ray cluster.

Ray hands out task numbers, nothing else: plan, shards and their commits are ours, on a file system
that all nodes share.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from vqtok.errors import UsageError, VqtokError
from vqtok.pipeline.engines import MAX_DEATHS, Load, Progress, TaskRunner
from vqtok.pipeline.plan import Plan
from vqtok.pipeline.workspace import Workspace
from vqtok.tokens.notes import Notes

START_SECONDS = 600
"""How long a job waits for its first actor: a cluster may have to start nodes."""


class OnRay:
    """A pool of Ray actors that take tasks as they come.

    Needs the extra ``ray``. Ray that runs in this process is used, else the cluster that
    ``RAY_ADDRESS`` names, else one is started on this machine. ``load`` makes the tokenizer in each
    actor. ``count`` actors (None: as many as the cluster's CPUs, or GPUs, hold) of ``threads`` CPUs
    each, and a GPU if ``gpu``; those that the cluster has no room for take no tasks until it has.
    One that dies, or whose node does, is replaced and its task done again, up to ``MAX_DEATHS``
    times.

    Raises UsageError when Ray is not installed or cannot be reached, VqtokError when no actor can
    start.
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
        ray = self.ray
        started = not ray.is_initialized()
        if started:
            self._connect()
        try:
            runner = TaskRunner(self.load, workspace.out.resolve(), self.workers, self.threads)
            _Pool(ray, self._actor(ray.put(runner)), workspace.plan).run(
                tasks, min(self._size(), len(tasks)), progress, notes
            )
        except ray.exceptions.RayError as error:
            raise VqtokError(f"Ray failed: {error}; the same command goes on from here") from error
        finally:
            if started:
                ray.shutdown()

    def _connect(self) -> None:
        try:
            self.ray.init(log_to_driver=False, logging_level="error")
        except Exception as error:  # Ray raises plain ones
            raise UsageError(f"Ray cannot be reached or started: {error}") from error

    def _actor(self, runner: Any) -> Callable[[], Any]:
        actor = self.ray.remote(num_cpus=self.threads, num_gpus=int(self.gpu))(_Actor)
        return lambda: actor.remote(runner)

    def _size(self) -> int:
        if self.count is not None:
            return self.count
        resources = self.ray.cluster_resources()
        size = int(resources.get("CPU", 1)) // self.threads
        if self.gpu:
            size = min(size, int(resources.get("GPU", 0)))
        return max(1, size)


class _Pool:
    """Actors and what they are at; ``new_actor`` makes one."""

    def __init__(self, ray: Any, new_actor: Callable[[], Any], plan: Plan) -> None:
        self.ray, self.new_actor, self.plan = ray, new_actor, plan
        self.starting: dict[Any, Any] = {}  # what will say that it has begun: actor
        self.running: dict[Any, tuple[Any, int]] = {}  # what will be its result: actor, task
        self.deaths = Counter[int | None]()  # over each task; None: before any

    def run(self, tasks: Sequence[int], size: int, progress: Progress, notes: Notes) -> None:
        """Run the tasks on ``size`` actors, as many of them as find a place."""
        waiting, free, anyone = deque(tasks), list[Any](), False
        for _ in range(size):
            self._start()
        try:
            while waiting or self.running:
                while waiting and free:
                    actor, task = free.pop(), waiting.popleft()
                    self.running[actor.run.remote(task)] = actor, task
                for done in self._wait(anyone):
                    if done in self.starting:
                        actor = self._started(done)
                        if actor is None:
                            continue
                        anyone = True
                    else:
                        actor, task = self.running.pop(done)
                        found = self._result(done, task)
                        if found is None:
                            waiting.appendleft(task)
                            self._start()
                            continue
                        notes.update(found)
                        progress(len(self.plan.task_sources(task)))
                    free.append(actor)
        finally:
            busy = [actor for actor, _ in self.running.values()]
            for actor in [*free, *busy, *self.starting.values()]:
                self.ray.kill(actor)

    def _start(self) -> None:
        actor = self.new_actor()
        self.starting[actor.begin.remote()] = actor

    def _started(self, begun: Any) -> Any:
        """The actor that says it has begun; None when it died, and another one starts."""
        actor = self.starting.pop(begun)
        try:
            self.ray.get(begun)
        except self.ray.exceptions.RayActorError as error:
            self.deaths[None] += 1
            if self.deaths[None] == MAX_DEATHS:
                raise VqtokError(f"{MAX_DEATHS} Ray actors died as they began: {error}") from error
            self._start()
            return None
        return actor

    def _wait(self, anyone: bool) -> list[Any]:
        """What is done next: an actor's start or a task."""
        done: list[Any] = self.ray.wait(
            [*self.running, *self.starting], timeout=None if anyone else START_SECONDS
        )[0]
        if not done:
            raise VqtokError(
                f"no Ray actor could start within {START_SECONDS} s: the cluster has "
                f"{self.ray.cluster_resources()}, of which {self.ray.available_resources()} are "
                "free, and an actor needs a CPU, with --device cuda a GPU too"
            )
        return done

    def _result(self, result: Any, task: int) -> Notes | None:
        """What a task noted; None when its actor died. Raises what went wrong in it."""
        errors = self.ray.exceptions
        try:
            found: Notes = self.ray.get(result)
        except errors.RayActorError as error:
            self.deaths[task] += 1
            if self.deaths[task] == MAX_DEATHS:
                raise VqtokError(
                    f"a Ray actor died {MAX_DEATHS} times over {self.plan.shard_name(task)}: "
                    f"{error}; the same command goes on from here"
                ) from error
            return None
        except errors.RayTaskError as error:
            raise _cause(error) from error
        return found


class _Actor:
    def __init__(self, runner: TaskRunner) -> None:
        self.runner = runner

    def begin(self) -> None:
        """Nothing: that it was done says that the actor has found a place."""

    def run(self, task: int) -> Notes:
        return self.runner.run(task)


def _cause(error: Any) -> Exception:
    """What went wrong in an actor: ours as it is, anything else with Ray's traceback."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, VqtokError | OSError) else RuntimeError(str(error))
