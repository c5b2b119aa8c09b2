"""The work of a bench, sample by sample, in this process or several."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vqtok._version import __version__
from vqtok.bench.codecs import Lineup
from vqtok.bench.codecs.base import Coded, Coder
from vqtok.bench.inputs import read_sample
from vqtok.bench.metrics import make_metrics
from vqtok.bench.metrics.base import Metric
from vqtok.bench.results import Sample
from vqtok.bench.store import Measurement, Store, Unit, unit_key
from vqtok.errors import VqtokError
from vqtok.media.sources import Source

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Done:
    """What came of one input: its description and a key per coder, or why it can't be read."""

    sample: Sample | None
    keys: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Bench:
    """All that decides the results; small enough to be sent to other processes."""

    lineup: Lineup
    metrics: tuple[str, ...]
    weights: Path | None
    folder: Path

    @cached_property
    def coders(self) -> list[Coder]:
        return self.lineup.coders()

    @cached_property
    def measures(self) -> list[Metric]:
        return make_metrics(self.lineup.modality, self.metrics, self.weights)

    @property
    def store(self) -> Store:
        return Store(self.folder)

    def do(self, source: Source) -> Done:
        """Everything about one input, less what is done already."""
        try:
            original, sample = read_sample(source, self.lineup.modality, self.lineup.quick)
        except (VqtokError, OSError) as error:
            return Done(None, error=" ".join(str(error).split()))
        keys = []
        for coder in self.coders:
            key = unit_key(
                original, coder=coder.identity, curves=self._settings(coder), by=self._by
            )
            if self.store.load(key) is None:
                self.store.save(key, *self._unit(coder, original, sample))
            keys.append(key)
        return Done(sample, tuple(keys))

    def _settings(self, coder: Coder) -> list[Any]:
        return [[curve.name, curve.settings] for curve in coder.curves]

    @cached_property
    def _by(self) -> list[Any]:
        """The metrics with the versions of their packages, and vqtok's."""
        packages = [
            [metric.name, metric.definition, metric.package and _version(metric.package[0])]
            for metric in self.measures
        ]
        return [packages, __version__, str(self.weights)]

    def _unit(
        self, coder: Coder, original: np.ndarray[Any, Any], sample: Sample
    ) -> tuple[Unit, list[bytes]]:
        found: list[Measurement] = []
        files: list[bytes] = []
        error = None
        qualities: dict[str, dict[str, float | None]] = {}
        try:
            for coded in coder.code(original, sample):
                if coded.setting not in qualities or coder.kind == "baseline":
                    qualities[coded.setting] = self._quality(original, coded, sample)
                files.append(coded.data)
                found.append(
                    Measurement(
                        curve=coded.curve,
                        setting=coded.setting,
                        bytes=len(coded.data),
                        encode_seconds=coded.encode_seconds,
                        decode_seconds=coded.decode_seconds,
                        peak_memory_bytes=coded.peak_memory_bytes,
                        quality=qualities[coded.setting],
                    )
                )
        except Exception as failure:  # other people's codecs raise anything
            error = " ".join(str(failure).split()) or type(failure).__name__
        return Unit(measurements=tuple(found), error=error), files

    def _quality(
        self, original: np.ndarray[Any, Any], coded: Coded, sample: Sample
    ) -> dict[str, float | None]:
        rate = sample.sample_rate or 0
        values: dict[str, float | None] = {}
        for metric in self.measures:
            try:
                value = metric(original, coded.decoded, rate)
            except Exception as error:  # other people's, too
                raise VqtokError(f"{coded.setting}: metric {metric.name}: {error}") from error
            if value is not None and not np.isfinite(value):
                raise VqtokError(f"{coded.setting}: metric {metric.name} is {value}")
            values[metric.name] = value
        return values


def run_all(
    bench: Bench, sources: Sequence[Source], processes: int, progress: Progress
) -> list[Done]:
    """Do all inputs; the result is in their order, whatever the number of processes."""
    if processes == 1:
        return list(_here(bench, sources, progress))
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    pool = ProcessPoolExecutor(
        min(processes, len(sources)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(replace(bench), threads),  # without what was loaded
    )
    try:
        futures: list[Future[Done]] = [pool.submit(_do, source) for source in sources]
        for _ in as_completed(futures):
            progress(1)
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise VqtokError(
            "a process was killed, perhaps for want of memory; run again with --resume and fewer "
            "--processes"
        ) from error
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _here(bench: Bench, sources: Sequence[Source], progress: Progress) -> Iterator[Done]:
    for source in sources:
        yield bench.do(source)
        progress(1)


_bench: Bench | None = None


def _begin(bench: Bench, threads: int) -> None:
    """Make a process ready; Ctrl-C is the parent's to see."""
    global _bench
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    _bench = bench


def _do(source: Source) -> Done:
    assert _bench is not None
    return _bench.do(source)


def _version(requirement: str) -> str:
    return metadata.version(requirement.split(">")[0])
