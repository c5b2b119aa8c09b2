"""scripts/anomaly_series.py: what counts as anomalous, and how steps get their scores."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import anomaly_series  # type: ignore[import-not-found]
import series_data  # type: ignore[import-not-found]


def test_series_of_nab_are_averaged_and_a_stretch_counts_where_it_touches(tmp_path):
    folder = tmp_path / "data" / "kind"
    folder.mkdir(parents=True)
    times = [f"2014-04-01 00:{minute:02d}:00" for minute in range(10)]
    lines = [f"{time},{value}" for value, time in enumerate(times)]
    for name in ("odd.csv", "fine.csv"):
        (folder / name).write_text("\n".join(["timestamp,value", *lines]) + "\n")
    (tmp_path / "labels").mkdir()
    spans = {"kind/odd.csv": [[times[7] + ".000000", times[9] + ".000000"]], "kind/fine.csv": []}
    (tmp_path / "labels" / "combined_windows.json").write_text(json.dumps(spans))
    (case,) = series_data.nab(tmp_path)
    assert case.name == "odd"
    assert case.test.tolist() == [[1.5], [5.5]]  # of 0..3 and 4..7; two steps are left over
    assert case.anomalous.tolist() == [False, True]


@pytest.mark.parametrize("disease", series_data.DISEASES)
def test_only_steps_that_differ_from_the_healthy_beat_are_anomalous(disease):
    cases = series_data.heartbeats(0, train_beats=5, test_beats=100)
    (case,) = (case for case in cases if case.name == f"ecg {disease}")
    # A tenth of the beats is ill, most of each is as it would have been.
    assert 0 < case.anomalous.mean() < 0.1
    starts = np.flatnonzero(np.diff(case.anomalous.astype(int)) == 1)
    assert 1 <= len(starts) <= 3 * 25  # an ill beat differs in at most three places


def test_where_stretches_are_labelled_a_step_has_the_score_of_its_windows():
    series = np.zeros((40, 1), np.float32)
    series[20] = 1.0
    anomalous = np.zeros(40, bool)
    anomalous[17:24] = True  # where windows of 4 that hold step 20 lie
    options = argparse.Namespace(length=4, stride=1)

    def areas(stretches):
        case = series_data.Labelled("one", series, series, anomalous, stretches)
        return anomaly_series.judge(lambda windows: -windows.square(), case, options)[0]

    assert areas(True) == pytest.approx(100)
    # By step, six of the seven are like all others.
    assert areas(False) == pytest.approx(100 * (1 / 7 + 6 / 7 / 2))
