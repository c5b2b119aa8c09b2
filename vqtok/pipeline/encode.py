"""Encoding files into a token dataset."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vqtok.errors import DataError
from vqtok.media.sources import Source
from vqtok.pipeline.images import encode_images
from vqtok.pipeline.plan import Plan
from vqtok.pipeline.sounds import encode_sounds
from vqtok.pipeline.workspace import Failure, Part, Workspace, open_workspace
from vqtok.tokens import Manifest, Sample, write_shard
from vqtok.tokens.manifest import MANIFEST
from vqtok.tokens.notes import Notes

if TYPE_CHECKING:
    from vqtok.tokenizer import Tokenizer

Progress = Callable[[int], object]

ENCODERS: dict[str, Callable[..., Generator[Sample | DataError, None, None]]] = {
    "image": encode_images,
    "audio": encode_sounds,
}
"""By modality: ``(sources, tokenizer, num_codebooks, workers)`` to a sample or error for each."""


@dataclass(frozen=True)
class EncodeReport:
    """What came of a run.

    ``manifest`` of the dataset; ``already_done``: a run before this one had finished it; ``notes``
    on the inputs that this run read.
    """

    manifest: Manifest
    already_done: bool
    notes: Notes = field(default_factory=Notes)


def encode_dataset(
    plan: Plan,
    tokenizer: Tokenizer,
    out: Path | str,
    *,
    workers: int = 2,
    progress: Progress | None = None,
) -> EncodeReport:
    """Run ``plan`` into the folder ``out``, or go on with it there.

    ``workers`` threads read files while the model runs; memory holds a few inputs per worker (of
    sounds, a piece of each) and one shard. The dataset's bytes do not depend on ``workers``, nor on
    how often the run was killed.

    Inputs that cannot be read are listed in ``errors.jsonl``. ``progress`` is called with the
    number of inputs that are done since its last call.

    Raises UsageError when ``out`` holds something else, OSError when it cannot be written.
    """
    report = progress or (lambda count: None)
    with open_workspace(Path(out), plan) as workspace:
        if (workspace.out / MANIFEST).exists():
            report(len(plan.sources))
            return EncodeReport(workspace.finished_manifest(), already_done=True)
        done = [workspace.part(task) is not None for task in range(plan.num_tasks)]
        report(sum(len(plan.task_sources(task)) for task in range(plan.num_tasks) if done[task]))
        pending = [task for task in range(plan.num_tasks) if not done[task]]
        inputs = (source for task in pending for source in plan.task_sources(task))
        notes = Notes()
        with closing(read_samples(inputs, tokenizer, plan, workers)) as samples:
            for task in pending:
                encode_task(workspace, task, tokenizer, samples, report, notes)
        return EncodeReport(workspace.merge(), already_done=False, notes=notes)


def read_samples(
    sources: Iterable[Source], tokenizer: Tokenizer, plan: Plan, workers: int
) -> Generator[Sample | DataError, None, None]:
    """The samples of ``sources`` in order, read in threads; for a bad one, its error."""
    encoder = ENCODERS[plan.header.modality]
    return encoder(sources, tokenizer, plan.header.num_codebooks, workers)


def encode_task(
    workspace: Workspace,
    task: int,
    tokenizer: Tokenizer,
    samples: Iterator[Sample | DataError] | None = None,
    progress: Progress | None = None,
    notes: Notes | None = None,
) -> Part:
    """Make shard ``task`` of the plan and record it. Doing so again gives the same bytes.

    ``samples``: an iterator whose next items are those of the task's sources (by default they are
    made here). ``notes``: those on the samples are added here.
    """
    plan = workspace.plan
    sources = plan.task_sources(task)
    results = read_samples(sources, tokenizer, plan, 1) if samples is None else samples
    failures: list[Failure] = []

    def good() -> Iterator[Sample]:
        for source in sources:
            result = next(results)
            if isinstance(result, DataError):
                failures.append(Failure(source.uri, str(result).removeprefix(f"{source.uri}: ")))
            else:
                if notes is not None:
                    notes.add(result.meta)
                yield result
            if progress is not None:
                progress(1)

    shard = write_shard(workspace.out / plan.shard_name(task), good(), plan.header)
    part = Part(shard, tuple(failures))
    workspace.commit(task, part)
    return part
