"""Encoding files into a token dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vqtok.errors import UsageError
from vqtok.pipeline.arrays import ForeignCodes
from vqtok.pipeline.engines import Engine, Here
from vqtok.pipeline.plan import Plan
from vqtok.pipeline.share import Share
from vqtok.pipeline.workspace import open_workspace
from vqtok.tokens import Manifest
from vqtok.tokens.manifest import MANIFEST
from vqtok.tokens.notes import Notes
from vqtok.tokens.prior import PRIOR, Prior, is_bundled

if TYPE_CHECKING:
    from vqtok.tokenizer import Tokenizer


@dataclass(frozen=True)
class EncodeReport:
    """What came of a run.

    ``manifest`` of the dataset; None while tasks of other processes are not done. ``already_done``:
    a run before this one had finished it; ``notes`` on the inputs that this run read.
    """

    manifest: Manifest | None
    already_done: bool
    notes: Notes = field(default_factory=Notes)


def encode_dataset(
    plan: Plan,
    tokenizer: Tokenizer | ForeignCodes,
    out: Path | str,
    *,
    workers: int = 2,
    progress: Callable[[int], object] | None = None,
    engine: Engine | None = None,
    share: Share | None = None,
) -> EncodeReport:
    """Run ``plan`` into the folder ``out``, or go on with it there.

    ``workers`` threads read files while the model runs; memory holds a few inputs per worker (of
    sounds, a piece of each) and one shard. ``engine`` runs the tasks instead of this process with
    ``tokenizer``. ``share``: run these tasks only; the processes of the other shares have the same
    ``plan`` and ``out``, and whichever is done last makes the dataset. The dataset's bytes depend
    on none of these, nor on how often a run was killed.

    Inputs that cannot be read are listed in ``errors.jsonl``. ``progress`` is called with the
    number of inputs that are done since its last call.

    Raises UsageError when ``out`` holds something else, OSError when it cannot be written.
    """
    report = progress or (lambda count: None)
    share = share or Share()
    run = engine or Here(tokenizer, workers)
    own = share.tasks(plan.num_tasks)
    with open_workspace(Path(out), plan, shared=share.size > 1) as workspace:
        if (workspace.out / MANIFEST).exists():
            report(sum(len(plan.task_sources(task)) for task in own))
            return EncodeReport(workspace.finished_manifest(), already_done=True)
        pending = [task for task in own if workspace.part(task) is None]
        left = set(pending)
        report(sum(len(plan.task_sources(task)) for task in own if task not in left))
        notes = Notes()
        if plan.header.prior:
            _place_prior(Path(out), plan.header.prior, tokenizer.prior)
        if pending:
            run(workspace, pending, report, notes)
        if share.size > 1:
            return EncodeReport(workspace.merge_if_last(), already_done=False, notes=notes)
        return EncodeReport(workspace.merge(), already_done=False, notes=notes)


def _place_prior(out: Path, digest: str, prior: Prior | None) -> None:
    """Put the prior that a plan names into the dataset, unless it comes with vqtok."""
    if prior is None or prior.digest != digest:
        raise UsageError(f"the plan is for the prior {digest[:12]}, the tokenizer has another")
    if not is_bundled(prior):
        prior.save(out / PRIOR)
