"""The output folder of an encoding job while it runs.

``OUT/.vqtok`` holds the plan, a lock, and one *part* per finished task: what its shard is and which
inputs failed. A task is done when its part and its shard are there. Merging the parts writes
``errors.jsonl`` and, last, the manifest; then ``.vqtok`` goes. Each step replaces whole files, so a
job that was killed goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vqtok.errors import DataError, UsageError
from vqtok.files import atomic_write, remove_temporaries, sync_directory, temporary_name
from vqtok.pipeline.lock import Lock
from vqtok.pipeline.plan import Plan, differences
from vqtok.tokens.header import Header, dump_json, parse_json
from vqtok.tokens.manifest import (
    ERRORS,
    MANIFEST,
    Manifest,
    ShardInfo,
    read_manifest,
    write_manifest,
)

WORK = ".vqtok"
PLAN = "plan.json"
MERGE_SECONDS = 60
"""How long a process waits for another one that may be merging."""


@dataclass(frozen=True)
class Failure:
    """An input that could not be encoded, and why."""

    source: str
    error: str


@dataclass(frozen=True)
class Part:
    """What came of a task."""

    shard: ShardInfo
    errors: tuple[Failure, ...]


class Workspace:
    """The folder ``out`` for one plan; make it with :func:`open_workspace`."""

    def __init__(self, out: Path, plan: Plan, lock: Lock | None = None) -> None:
        self.out = out
        self.plan = plan
        self._lock = lock

    def part(self, task: int) -> Part | None:
        """What came of a task, or None when it is not done."""
        path = self._part_path(task)
        try:
            value = parse_json(path.read_bytes(), str(path))
            info = ShardInfo.from_json(value["shard"], str(path))
            part = Part(info, tuple(Failure(**entry) for entry in value["errors"]))
        except (FileNotFoundError, DataError, KeyError, TypeError):
            return None
        name = self.plan.shard_name(task)
        return part if info.file == name and _is_whole(self.out / name, info) else None

    def commit(self, task: int, part: Part) -> None:
        """Record that a task is done; its shard must be in place."""
        errors = [asdict(failure) for failure in part.errors]
        with atomic_write(self._part_path(task)) as file:
            file.write(dump_json({"shard": asdict(part.shard), "errors": errors}))

    def merge(self) -> Manifest:
        """Make the parts a dataset. DataError while a task is not done."""
        parts = []
        for task in range(self.plan.num_tasks):
            part = self.part(task)
            if part is None:
                raise DataError(f"{self.out}: task {task} of {self.plan.num_tasks} is not done")
            parts.append(part)
        errors = [failure for part in parts for failure in part.errors]
        if errors:
            with atomic_write(self.out / ERRORS) as file:
                file.writelines(dump_json(asdict(failure)) + b"\n" for failure in errors)
        remove_temporaries(self.out)  # of processes that were killed
        shards = [part.shard for part in parts]
        write_manifest(
            self.out, self.plan.header, shards, errors=len(errors), plan=self.plan.digest
        )
        return self.finished_manifest()

    def merge_if_last(self) -> Manifest | None:
        """Merge if every task is done and no other process is at work here; else None.

        Of processes that share a plan at least the last one to call this merges, unless tasks of a
        process that died, or has not begun, are not done.
        """
        assert self._lock is not None
        if not self._lock.make_exclusive():
            return None
        if (self.out / MANIFEST).exists():  # another one was faster
            return self.finished_manifest()
        if self.missing():
            return None
        return self.merge()

    def missing(self) -> int:
        """Number of tasks that are not done."""
        return sum(self.part(task) is None for task in range(self.plan.num_tasks))

    def finished_manifest(self) -> Manifest:
        """The manifest of the finished dataset; what was needed to make it is removed."""
        manifest = read_manifest(self.out)
        if self._lock is None or self._lock.make_exclusive():
            gone = temporary_name(self.out / WORK)  # at once, since others may be about to look
            with suppress(FileNotFoundError):  # where there are no locks, another may be as far
                (self.out / WORK).rename(gone)
            remove_temporaries(self.out)
            sync_directory(self.out)
        return manifest

    def _part_path(self, task: int) -> Path:
        return self.out / WORK / f"part-{task:05d}.json"


def _is_whole(shard: Path, info: ShardInfo) -> bool:
    return shard.is_file() and shard.stat().st_size == info.bytes


@contextmanager
def open_workspace(out: Path, plan: Plan, *, shared: bool = False) -> Iterator[Workspace]:
    """Make or take up the folder ``out`` for ``plan``, and clean up after a killed run.

    ``shared``: other processes with the same plan may work here too, at other tasks.

    Raises UsageError when the folder holds something else: another dataset, a run with another
    plan, other files, or a run that is going on now; DataError when it holds the finished dataset
    of this plan but a shard of it is lost.
    """
    plan = _check_output(out, plan)
    work = out / WORK
    was_begun = _is_begun(out)
    lock = Lock(work / "lock")
    try:
        if not lock.take(shared=shared, seconds=MERGE_SECONDS if shared else 0):
            raise UsageError(f"{out}: another vqtok encode is writing here now")
        if not was_begun and _is_begun(out):  # by another process, perhaps with another plan
            plan = _check_output(out, plan)
        if not shared:
            remove_temporaries(out)
            remove_temporaries(work)
        if not _is_begun(out):
            try:
                with atomic_write(work / PLAN, replace=False) as file:
                    file.write(plan.to_bytes())
            except FileExistsError:  # another process was faster, perhaps with another plan
                plan = _check_output(out, plan)
        yield Workspace(out, plan, lock)
    finally:
        lock.release()


def _check_output(out: Path, plan: Plan) -> Plan:
    """The plan to go on with: what an older vqtok began stays in its format version."""
    if out.is_symlink() and not out.exists():
        raise UsageError(f"{out} is a link to nothing; remove it, or make the folder it names")
    if (out / WORK).is_symlink():
        raise UsageError(f"{out / WORK} is a link; vqtok never makes one, remove it")
    if not out.exists():
        return plan
    if not out.is_dir():
        raise UsageError(f"{out} is a file; the output must be a folder")
    plan_file = out / WORK / PLAN
    if (out / MANIFEST).exists():
        manifest = read_manifest(out)
        plan = _in_version_of(manifest.header, plan)
        if manifest.plan != plan.digest:
            changes = differences(manifest.header.to_json(), plan.options)
            reason = ", ".join(changes) or (
                "the inputs have changed, or it has another shard size, is of another device or "
                "precision, or its inputs were read in another way"
            )
            raise UsageError(
                f"{out} holds a finished dataset that differs: {reason}; choose another output "
                "folder, or remove this one"
            )
        for info in manifest.shards:
            if not _is_whole(out / info.file, info):
                raise DataError(
                    f"{out / info.file}: a shard of this finished dataset is missing or not of the "
                    "size that its manifest says; bring it back, or encode into another folder"
                )
    elif (begun := _begun(plan_file)) is not None:
        plan = _in_version_of(begun.header, plan)
        if begun.digest != plan.digest:
            changes = differences(begun.options, plan.options)
            reason = ", ".join(changes) or (
                "the inputs have changed, their names or their content "
                f"({len(plan.sources)} now, {len(begun.sources)} then)"
            )
            raise UsageError(
                f"{out} holds an unfinished run that differs: {reason}; finish it with the command "
                "that began it, or choose another output folder"
            )
    elif any(not path.name.startswith(".") for path in out.iterdir()):
        if (out / MANIFEST).exists():  # another process has finished it meanwhile
            return _check_output(out, plan)
        raise UsageError(f"{out} holds other files; choose a new or an empty folder")
    return plan


def _in_version_of(begun: Header, plan: Plan) -> Plan:
    return replace(plan, header=replace(plan.header, format_version=begun.format_version))


def _is_begun(out: Path) -> bool:
    return (out / MANIFEST).exists() or (out / WORK / PLAN).exists()


def _begun(plan_file: Path) -> Plan | None:
    try:
        return Plan.load(plan_file)
    except FileNotFoundError:
        return None
