"""What the libraries that exports are for make of them."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vqtok.exporters import EXPORTERS, export_dataset
from vqtok.tokens import Sample, TokenReader

LIBRARIES = {"parquet": "pyarrow", "hf": "datasets", "megatron": "megatron", "litdata": "litdata",
             "mds": "streaming", "webdataset": "webdataset", "npy": "numpy"}  # fmt: skip
FIRSTS = [0, 5, 305]


def read(command: str, folder: Path) -> Any:
    library = LIBRARIES.get(command, "megatron")
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    script = Path(__file__).with_name("readers.py")
    done = subprocess.run(
        [sys.executable, script, command, folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def rows(samples: list[Sample], *, as_tokens: bool) -> list:
    expected = []
    for index, sample in enumerate(samples):
        array = (sample.codes + FIRSTS).reshape(-1) if as_tokens else sample.codes
        expected.append([index, sample.meta.get("source", ""), array.reshape(-1).tolist(),
                         list(array.shape), dict(sample.meta)])  # fmt: skip
    return expected


@pytest.mark.parametrize("target", EXPORTERS)
def test_the_library_reads_it(target: str, dataset: Path, samples, tmp_path: Path) -> None:
    report = export_dataset(TokenReader(dataset), tmp_path / "out", target)
    assert (report.exported, report.failures, report.remarks) == (9, (), ())
    assert read(target, tmp_path / "out") == rows(samples, as_tokens=target == "megatron")


def test_a_language_model_trains_on_megatron_files(tmp_path, write_tokens) -> None:
    """The codes repeat themselves, so that twenty steps suffice to see it learn."""
    codes = np.arange(64).reshape(8, 8, 1) % 7
    samples = [Sample(codes, {"source": f"{i}.png"}) for i in range(64)]
    tokens = write_tokens(tmp_path / "tokens", samples, (7,), "plain")
    export_dataset(TokenReader(tokens), tmp_path / "out", "megatron")
    losses = read("train", tmp_path / "out")
    assert len(losses) == 20
    assert losses[0] > 1.5
    assert losses[-1] < 0.2
