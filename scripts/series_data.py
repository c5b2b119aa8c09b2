"""Series with known anomalies, for scripts/anomaly_series.py: NAB's files, and drawn heartbeats."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

RATE = 125  # samples a second of the drawn heartbeats
BEAT = 100  # samples of a beat, more or less
EVERY = 4  # steps of NAB's series that are averaged into one


@dataclass(frozen=True)
class Labelled:
    """A series and what is wrong with it.

    Attributes:
        name: for the table.
        train: float32 [T, 1], what models are fitted to.
        test: float32 [T', 1], what they score.
        anomalous: bool [T'], the truth.
        stretches: whether the truth is where about something is wrong, not at which steps.
    """

    name: str
    train: npt.NDArray[np.float32]
    test: npt.NDArray[np.float32]
    anomalous: npt.NDArray[np.bool_]
    stretches: bool


def nab(folder: Path) -> list[Labelled]:
    """The labelled series in a folder like https://github.com/numenta/NAB (data/, labels/).

    Models are fitted to the whole series without labels, anomalies included, as is usual for
    methods that need no clean data. Series without an anomaly are left out. Most have a step every
    5 minutes: each 4 are averaged, so that windows of 64 are about a day.
    """
    windows = json.loads((folder / "labels" / "combined_windows.json").read_text())
    found = []
    for path in sorted((folder / "data").rglob("*.csv")):
        spans = windows.get(f"{path.parent.name}/{path.name}", [])
        if not spans:
            continue
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        # Times are zero-padded, so their order is that of the text; some have a fraction.
        times = [row["timestamp"][:19] for row in rows]
        anomalous = np.array(
            [any(start[:19] <= time <= end[:19] for start, end in spans) for time in times]
        )
        values = np.array([float(row["value"]) for row in rows])
        whole = len(rows) // EVERY * EVERY
        series = values[:whole].reshape(-1, EVERY).mean(1, keepdims=True).astype(np.float32)
        anomalous = anomalous[:whole].reshape(-1, EVERY).any(1)
        found.append(Labelled(path.stem, series, series, anomalous, True))
    return found


def heartbeats(seed: int, *, train_beats: int = 400, test_beats: int = 200) -> list[Labelled]:
    """Drawn electrocardiograms, one series for each kind of anomaly in :data:`DISEASES`.

    A beat is a sum of five bumps (P, Q, R, S, T) along its phase, in the manner of McSharry et al.
    (2003, doi:10.1109/TBME.2003.808805); its length follows breath and chance, its bumps vary, and
    the baseline wanders. The training series is healthy; a tenth of the test beats are not. Of
    these the steps that differ by more than 0.05 (2.5 standard deviations of the noise) from the
    healthy beat of the same chance are the anomalous ones: the rest of an ill beat is normal.
    """
    generator = np.random.default_rng(seed)
    train, _ = _record(generator, train_beats, None)
    found = []
    for disease in DISEASES:
        test, anomalous = _record(generator, test_beats, disease)
        found.append(Labelled(f"ecg {disease}", train, test, anomalous, False))
    return found


# Centre in the beat's phase, height, width: P, Q, R, S, T.
_HEALTHY = np.array(
    [
        [0.20, 0.15, 0.025],
        [0.365, -0.12, 0.010],
        [0.39, 1.00, 0.011],
        [0.415, -0.25, 0.010],
        [0.62, 0.30, 0.045],
    ]
)


def _ventricular(bumps: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A beat from the wrong place: no P, wide and late R, T upside down."""
    return np.array([[0.2, 0.0, 0.02], [0.34, -0.1, 0.03], [0.41, 1.1, 0.04], [0.65, -0.35, 0.05]])


def _raised(bumps: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A raised plateau between S and T."""
    return np.vstack([bumps, [0.50, 0.15, 0.05]])


def _without_p(bumps: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return bumps[1:]


def _dropped(bumps: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The P goes unanswered."""
    return bumps[:1]


DISEASES = {
    "ventricular beat": _ventricular,
    "raised ST": _raised,
    "missing P": _without_p,
    "dropped beat": _dropped,
}


def _beat(bumps: npt.NDArray[np.float64], length: int) -> npt.NDArray[np.float64]:
    phase = np.arange(length)[:, None] / length
    beat: npt.NDArray[np.float64] = (
        bumps[:, 1] * np.exp(-0.5 * ((phase - bumps[:, 0]) / bumps[:, 2]) ** 2)
    ).sum(1)
    return beat


def _record(
    generator: np.random.Generator, beats: int, disease: str | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    pieces, labels = [], []
    for number in range(beats):
        ill = disease is not None and generator.random() < 0.1
        bumps = _HEALTHY * (1 + 0.05 * generator.standard_normal(_HEALTHY.shape))
        breath = 0.05 * np.sin(2 * np.pi * number / 5)
        length = int(BEAT * (1 + breath + 0.04 * generator.standard_normal()))
        healthy = _beat(bumps, length)
        pieces.append(_beat(DISEASES[disease](bumps), length) if ill else healthy)
        labels.append(np.abs(pieces[-1] - healthy) > 0.05)
    series = np.concatenate(pieces)
    time = np.arange(len(series)) / RATE
    series = series + 0.08 * np.sin(2 * np.pi * 0.21 * time + generator.uniform(0, 6))
    series = series + 0.02 * generator.standard_normal(len(series))
    return series[:, None].astype(np.float32), np.concatenate(labels)
