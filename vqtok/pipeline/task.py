"""One task: some inputs to one shard."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING

from vqtok.errors import DataError
from vqtok.media.sources import Source
from vqtok.pipeline.arrays import ForeignCodes
from vqtok.pipeline.images import encode_images
from vqtok.pipeline.plan import Plan
from vqtok.pipeline.sounds import encode_sounds
from vqtok.pipeline.workspace import Failure, Part, Workspace
from vqtok.tokens import Sample, write_shard
from vqtok.tokens.notes import Notes

if TYPE_CHECKING:
    from vqtok.tokenizer import Tokenizer

Result = Sample | list[Sample] | DataError
"""What an input gives: a sample, several, or what is wrong with it."""

ENCODERS: dict[str, Callable[..., Generator[Result, None, None]]] = {
    "image": encode_images,
    "audio": encode_sounds,
}
"""By modality: ``(sources, tokenizer, num_codebooks, workers, rate_weight)`` to a sample or error
for each."""


def read_samples(
    sources: Iterable[Source], tokenizer: Tokenizer | ForeignCodes, plan: Plan, workers: int
) -> Generator[Result, None, None]:
    """What ``sources`` give, in order, read in threads."""
    if isinstance(tokenizer, ForeignCodes):
        return tokenizer.read(sources, plan.header, workers)
    encoder = ENCODERS[plan.header.modality]
    header = plan.header
    return encoder(sources, tokenizer, header.num_codebooks, workers, header.rate_weight)


def encode_task(
    workspace: Workspace,
    task: int,
    tokenizer: Tokenizer | ForeignCodes,
    samples: Iterator[Result] | None = None,
    progress: Callable[[int], object] | None = None,
    notes: Notes | None = None,
) -> Part:
    """Make shard ``task`` of the plan and record it. Doing so again gives the same bytes.

    ``samples``: an iterator whose next items are what the task's sources give (by default they are
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
                result = []
            for sample in [result] if isinstance(result, Sample) else result:
                if notes is not None:
                    notes.add(sample.meta)
                yield sample
            if progress is not None:
                progress(1)

    shard = write_shard(workspace.out / plan.shard_name(task), good(), plan.header)
    part = Part(shard, tuple(failures))
    workspace.commit(task, part)
    return part
