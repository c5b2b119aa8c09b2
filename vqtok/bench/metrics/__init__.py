"""Measures of quality: one file per family."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vqtok.bench.metrics.base import Metric
from vqtok.bench.metrics.error import PSNR, LumaPSNR
from vqtok.bench.metrics.features import LPIPS, EffnetDistance
from vqtok.bench.metrics.hearing import PESQ, STOI, ViSQOL
from vqtok.bench.metrics.sound import SISDR, MelDistance, SpectrumDistance, STFTDistance
from vqtok.bench.metrics.ssimulacra import SSIMULACRA2
from vqtok.bench.metrics.structure import SSIM, MultiScaleSSIM
from vqtok.bench.optional import missing
from vqtok.errors import UsageError

IMAGE_METRICS: dict[str, type[Metric]] = {
    "psnr": PSNR,
    "psnr_y": LumaPSNR,
    "ssim": SSIM,
    "ms_ssim": MultiScaleSSIM,
    "ssimulacra2": SSIMULACRA2,
    "effnet_dist": EffnetDistance,
}
AUDIO_METRICS: dict[str, type[Metric]] = {
    "mel": MelDistance,
    "stft": STFTDistance,
    "spectrum": SpectrumDistance,
    "si_sdr": SISDR,
    "pesq": PESQ,
    "stoi": STOI,
    "visqol": ViSQOL,
}
METRICS = {"image": IMAGE_METRICS, "audio": AUDIO_METRICS}
WITH_WEIGHTS = ("lpips", "rfid")
"""Those of images that come without weights. rfid is of all images together."""

QUICK = {"image": ("psnr", "psnr_y", "ms_ssim"), "audio": ("mel", "stft", "spectrum", "si_sdr")}
"""Those that take next to no time."""


def make_metrics(modality: str, names: Sequence[str], weights: Path | None) -> list[Metric]:
    """The metrics of these names, rfid apart. ``weights``: the folder of those that have none.

    Raises UsageError for an unknown one, or where what one needs is not there.
    """
    made: list[Metric] = []
    for name in names:
        if name in METRICS[modality]:
            made.append(METRICS[modality][name]())
        elif modality != "image" or name not in WITH_WEIGHTS:
            known = [*METRICS[modality], *(WITH_WEIGHTS if modality == "image" else ())]
            raise UsageError(
                f"unknown metric {name!r} for {modality}: choose of {', '.join(known)}"
            )
        elif weights is None:
            raise UsageError(f"metric {name} needs weights: give their folder as --weights-dir")
        elif name == "lpips":
            made.append(LPIPS(weights))
    return made


def available(modality: str, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Which of these have what they need installed, and a line about each of the others."""
    found, notes = [], []
    for name in names:
        package = METRICS[modality][name].package
        hint = missing(*package) if package else None
        if hint:
            notes.append(f"metric {name} is left out: {hint}")
        else:
            found.append(name)
    return found, notes
