"""What the libraries that exports are for make of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vqtok.exporters import EXPORTERS, export_dataset
from vqtok.tokens import Sample, TokenReader

FIRSTS = [0, 5, 305]


def read(target: str, *folders: Path) -> Any:
    script = Path(__file__).with_name("readers.py")
    done = subprocess.run(
        [sys.executable, script, target, *folders], capture_output=True, text=True, check=False
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


@pytest.mark.parametrize("target", [target for target in EXPORTERS if target != "megatron"])
def test_the_library_reads_it(target: str, dataset: Path, samples, tmp_path: Path) -> None:
    report = export_dataset(TokenReader(dataset), tmp_path / "out", target)
    assert (report.exported, report.failures, report.remarks) == (9, (), ())
    assert read(target, tmp_path / "out") == rows(samples, as_tokens=False)


def test_megatron_reads_it_and_trains(dataset: Path, samples, tmp_path, write_tokens) -> None:
    """The codes to train on repeat themselves, so that twenty steps suffice to see it learn."""
    export_dataset(TokenReader(dataset), tmp_path / "out", "megatron")
    codes = np.arange(64).reshape(8, 8, 1) % 7
    easy = [Sample(codes, {"source": f"{i}.png"}) for i in range(64)]
    tokens = write_tokens(tmp_path / "tokens", easy, (7,), "plain")
    export_dataset(TokenReader(tokens), tmp_path / "easy", "megatron")
    found, losses = read("megatron", tmp_path / "out", tmp_path / "easy")
    assert found == rows(samples, as_tokens=True)
    assert len(losses) == 20
    assert losses[0] > 1.5
    assert losses[-1] < 0.2
