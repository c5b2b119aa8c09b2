"""Frechet inception distance between originals and decoded images (Heusel et al., 2017)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vqtok.bench.metrics.base import Array
from vqtok.bench.results import Metric
from vqtok.errors import DataError, UsageError

INCEPTION = "inception-2015-12-05.pt"

Features = NDArray[np.float64]


class Inception:
    """The network of FID as TorchScript, with the preprocessing of TensorFlow's in it."""

    def __init__(self, folder: Path) -> None:
        path = folder / INCEPTION
        if not path.is_file():
            raise UsageError(
                f"metric rfid needs {path}, the TorchScript that StyleGAN and clean-fid use"
            )
        try:
            with warnings.catch_warnings():  # TorchScript is deprecated, and how this one comes
                warnings.simplefilter("ignore", DeprecationWarning)
                self._network: Any = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
        except Exception as error:
            raise DataError(f"{path}: not a TorchScript file: {error}") from error

    def features(self, images: Iterable[Array]) -> Features:
        """float64 [N, F] of uint8 images [H, W, 3], one at a time."""
        rows = []
        with torch.no_grad():
            for pixels in images:
                batch = torch.from_numpy(pixels).permute(2, 0, 1)[None]
                rows.append(self._network(batch, return_features=True)[0].double().numpy())
        return np.stack(rows)


def frechet_distance(first: Features, second: Features) -> float:
    """Squared Frechet distance of the Gaussians with the means and covariances of two sets of rows.

    Covariances have N - 1 in the denominator. With few rows it is biased upwards.
    """
    difference = first.mean(0) - second.mean(0)
    one, other = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    # trace(sqrt(one @ other)) by the singular values of the factors: no complex roots.
    factors = [rows - rows.mean(0) for rows in (first, second)]
    scale = np.sqrt((len(first) - 1) * (len(second) - 1))
    overlap = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum() / scale
    return float(max(0.0, difference @ difference + np.trace(one) + np.trace(other) - 2 * overlap))


def described(samples: int) -> Metric:
    """What the report says about it."""
    return Metric(
        name="rfid",
        unit="",
        higher_is_better=False,
        definition=(
            f"Frechet inception distance between the {samples} originals and what was decoded of "
            "them, TorchScript Inception of StyleGAN; biased upwards for fewer than some thousands"
        ),
        samples=samples,
    )
