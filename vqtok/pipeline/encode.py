"""Encoding images into a token dataset."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vqtok.errors import DataError
from vqtok.media.images import DecodedImage, count_pixels, read_image
from vqtok.media.sources import Source
from vqtok.pipeline.overlap import overlapped
from vqtok.pipeline.plan import Plan
from vqtok.pipeline.workspace import Failure, Part, Workspace, open_workspace
from vqtok.tokens import Manifest, Sample, write_shard
from vqtok.tokens.manifest import MANIFEST

if TYPE_CHECKING:
    from vqtok.tokenizer import Tokenizer

Progress = Callable[[int], object]

MAX_PIXELS_AHEAD = 64_000_000
"""Most pixels that are decoded ahead of the model; a larger image is decoded ahead alone."""


@dataclass(frozen=True)
class EncodeReport:
    """``manifest`` of the dataset; ``already_done``: a run before this one had finished it."""

    manifest: Manifest
    already_done: bool


def encode_dataset(
    plan: Plan,
    tokenizer: Tokenizer,
    out: Path | str,
    *,
    workers: int = 2,
    progress: Progress | None = None,
) -> EncodeReport:
    """Run ``plan`` into the folder ``out``, or go on with it there.

    ``workers`` threads read and decode images while the model runs in the calling thread; memory
    holds a few images per worker, of 64 million pixels together, and one shard. The dataset's bytes
    do not depend on ``workers``, nor on how often the run was killed.

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
        with closing(read_images(inputs, workers)) as images:
            for task in pending:
                encode_task(workspace, task, tokenizer, images, report)
        return EncodeReport(workspace.merge(), already_done=False)


def read_images(
    sources: Iterable[Source], workers: int
) -> Generator[DecodedImage | DataError, None, None]:
    """The images of ``sources`` in order, decoded ahead in threads; for a bad one, its error."""
    return overlapped(_read, sources, workers, count_pixels, MAX_PIXELS_AHEAD)


def encode_task(
    workspace: Workspace,
    task: int,
    tokenizer: Tokenizer,
    images: Iterator[DecodedImage | DataError] | None = None,
    progress: Progress | None = None,
) -> Part:
    """Make shard ``task`` of the plan and record it. Doing so again gives the same bytes.

    ``images``: an iterator whose next items are those of the task's sources (by default they are
    read here).
    """
    plan = workspace.plan
    sources = plan.task_sources(task)
    decoded = read_images(sources, 1) if images is None else images
    failures: list[Failure] = []

    def samples() -> Iterator[Sample]:
        for source in sources:
            image = next(decoded)
            if isinstance(image, DataError):
                failures.append(Failure(source.uri, str(image).removeprefix(f"{source.uri}: ")))
            else:
                yield _encode(source, image, tokenizer, plan.header.num_codebooks)
            if progress is not None:
                progress(1)

    shard = write_shard(workspace.out / plan.shard_name(task), samples(), plan.header)
    part = Part(shard, tuple(failures))
    workspace.commit(task, part)
    return part


def _read(source: Source) -> DecodedImage | DataError:
    try:
        return read_image(source)
    except DataError as error:
        return error


def _encode(
    source: Source, image: DecodedImage, tokenizer: Tokenizer, num_codebooks: int
) -> Sample:
    import torch

    # One image at a time: images differ in size, and the codes must not depend on company.
    pixels = torch.from_numpy(image.pixels).permute(2, 0, 1)[None]
    codes = tokenizer.encode(pixels, num_codebooks=num_codebooks)[0]
    meta: dict[str, object] = {"source": source.uri, "size": list(image.pixels.shape[:2])}
    if image.notes:
        meta["notes"] = list(image.notes)
    return Sample(codes.cpu().numpy(), meta)
