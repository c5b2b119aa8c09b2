"""Do latents separate the factors that made the data? Two scores, for data whose factors are known.

MIG: Chen et al. 2018, arXiv:1802.04942, of latents as they are given (means or draws). DCI:
Eastwood & Williams 2018 (with random forests, which need scikit-learn, extra ``sklearn``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class DCI:
    """Each in 0..1.

    Attributes:
        disentanglement: whether a latent is about one factor alone.
        completeness: whether a factor is in one latent alone.
        informativeness: share of held-out samples whose factors are predicted right.
    """

    disentanglement: float
    completeness: float
    informativeness: float


def mutual_information_gap(latents: Array, factors: Array, bins: int = 20) -> float:
    """How much more the best latent tells about a factor than the second best, 0..1.

    Mean over factors, each in units of the factor's entropy.

    Args:
        latents: float [N, D], D at least 2.
        factors: int [N, F].
        bins: of equal width, for each latent.
    """
    gaps = []
    codes = np.stack([_binned(column, bins) for column in latents.T], 1)
    for factor in factors.T:
        shared = sorted(_mutual_information(code, factor) for code in codes.T)
        gaps.append((shared[-1] - shared[-2]) / max(_mutual_information(factor, factor), 1e-12))
    return float(np.mean(gaps))


def dci(
    latents: Array, factors: Array, *, seed: int = 0, trees: int = 20, smallest_leaf: float = 0.04
) -> DCI:
    """Importances of latents for predicting factors.

    Trees that grow until they know their samples by heart split on noise, which makes all latents
    look important: a perfect code with some noise scores 0.2 of 1. So their leaves are large.

    Args:
        latents: float [N, D].
        factors: int [N, F]; half of the samples train the predictors, half test them.
        seed: of the predictors.
        trees: in each forest.
        smallest_leaf: share of the training samples that each leaf holds at least. A factor of
            more values than fit into such leaves is not predicted in full.
    """
    from sklearn.ensemble import RandomForestClassifier

    half = len(latents) // 2
    importance = np.zeros((latents.shape[1], factors.shape[1]))
    right = []
    for number, factor in enumerate(factors.T):
        # All latents at each split: otherwise useless ones get their turn, and importance.
        forest = RandomForestClassifier(
            trees, min_samples_leaf=smallest_leaf, max_features=None, random_state=seed
        )
        forest.fit(latents[:half], factor[:half])
        importance[:, number] = forest.feature_importances_
        right.append(forest.score(latents[half:], factor[half:]))
    weight = importance.sum(1) / max(importance.sum(), 1e-12)
    return DCI(
        float((weight * _concentration(importance)).sum()),
        float(_concentration(importance.T).mean()),
        float(np.mean(right)),
    )


def _concentration(importance: Array) -> Array:
    """1 - entropy of each row, in units of its largest possible value: [rows]."""
    share = importance / np.maximum(importance.sum(1, keepdims=True), 1e-12)
    entropy = -(share * np.log(np.maximum(share, 1e-12))).sum(1)
    found: Array = 1 - entropy / np.log(importance.shape[1])
    return found


def _binned(values: Array, bins: int) -> Array:
    edges = np.linspace(values.min(), values.max(), bins + 1)[1:-1]
    return np.digitize(values, edges)


def _mutual_information(first: Array, second: Array) -> float:
    """Of two integer columns, in nats."""
    _, rows = np.unique(first, return_inverse=True)
    _, columns = np.unique(second, return_inverse=True)
    joint = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(joint, (rows, columns), 1 / len(first))
    outer = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    some = joint > 0
    return float((joint[some] * np.log(joint[some] / outer[some])).sum())
