"""Exporting a token dataset: the same for every target."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vqtok.errors import DataError, UsageError
from vqtok.exporters import litdata, mds, megatron, npy, parquet, webdataset
from vqtok.exporters.layouts import check_layout, codes_in_line
from vqtok.exporters.records import INFO, Record, Spec, Write, synced
from vqtok.files import atomic_folder, naming
from vqtok.tokens import TokenReader
from vqtok.tokens.header import dump_json
from vqtok.tokens.sequences import SequenceLayout

EXPORTERS: dict[str, Write] = {
    "parquet": parquet.write,
    "hf": parquet.write_hub,
    "megatron": megatron.write,
    "litdata": litdata.write,
    "mds": mds.write,
    "webdataset": webdataset.write,
    "npy": npy.write,
}
"""By the name of the target."""

_LINES_ONLY = ("megatron",)


@dataclass(frozen=True)
class ExportReport:
    """What came of an export.

    ``exported``: number of samples. ``failures``: one message per sample that is lost.
    ``remarks``: of the exporter, for people.
    """

    exported: int
    failures: tuple[str, ...]
    remarks: tuple[str, ...]


def export_dataset(
    tokens: TokenReader,
    out: Path | str,
    target: str,
    *,
    layout: SequenceLayout | None = None,
    num_codebooks: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int], object] | None = None,
) -> ExportReport:
    """Write ``tokens`` in the format ``target``, one of :data:`EXPORTERS`, into the folder ``out``.

    Without ``layout`` arrays are codes [*dims, Q], of the first ``num_codebooks`` codebooks; with
    one they are its tokens. (megatron has tokens only, by default codes position after position,
    with those of each codebook after those of the one before.) ``out`` appears complete or not at
    all. A sample that is damaged, or that the layout is not made for, costs itself alone and is
    reported.

    Raises UsageError for another target, and for an ``out`` that is not empty, unless it holds an
    earlier export and ``overwrite`` says to replace it, with all in that folder.
    """
    out = Path(out)
    if target not in EXPORTERS:
        raise UsageError(f"no target {target!r}: choose {', '.join(EXPORTERS)}")
    count = tokens.header.num_codebooks if num_codebooks is None else num_codebooks
    if not 1 <= count <= tokens.header.num_codebooks:
        raise UsageError(f"num_codebooks is {count}, the tokens have {tokens.header.num_codebooks}")
    check_output(out, overwrite)
    if tokens.path.resolve().is_relative_to(out.resolve()):
        raise UsageError(f"{tokens.path} lies in {out}, which the export replaces: choose another")
    sizes = tokens.header.codebook_sizes[:count]
    if layout is None and target in _LINES_ONLY:
        layout = codes_in_line(tokens.header, sizes)
    if layout is not None:
        check_layout(layout, sizes)
    spec = Spec(tokens.header, sizes, layout)
    failures: list[str] = []
    with naming(out), atomic_folder(out) as folder:
        records = _records(tokens, spec, failures, progress or (lambda count: None))
        remarks = EXPORTERS[target](folder, records, spec)
        exported = len(tokens) - len(failures)
        with synced(folder / INFO) as file:
            facts = {"format": "vqtok.export", "target": target, "samples": exported}
            file.write(dump_json({**facts, **spec.to_json()}) + b"\n")
    return ExportReport(exported, tuple(failures), tuple(remarks))


def check_output(out: Path, overwrite: bool) -> None:
    """UsageError unless ``out`` is new, empty, or an export that may be replaced."""
    if out.is_symlink() and not out.exists():
        raise UsageError(f"{out} is a link to nothing; remove it, or make the folder it names")
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file; the output must be a folder")
    if not any(out.iterdir()):
        return
    if not (out / INFO).is_file():
        raise UsageError(f"{out} holds other files; choose a new or an empty folder")
    if not overwrite:
        raise UsageError(
            f"{out} holds an export; choose a new folder, or --overwrite to replace it"
        )


def _records(
    tokens: TokenReader, spec: Spec, failures: list[str], progress: Callable[[int], object]
) -> Iterator[Record]:
    count = len(spec.codebook_sizes)
    for index in range(len(tokens)):
        try:
            sample = tokens.read(index, count)
            array = sample.codes if spec.layout is None else spec.layout.tokens(sample.codes)
        except DataError as error:
            failures.append(str(error))
        except ValueError as error:
            failures.append(f"sample {index} ({sample.meta.get('source')}): {error}")
        else:
            yield Record(index, array.astype(spec.dtype), sample.meta)
        progress(1)
