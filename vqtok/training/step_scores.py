"""Scores of the steps of a long series, from scores of its windows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def step_scores(
    score: Callable[[Tensor], Tensor], series: Tensor, length: int, *, stride: int = 1
) -> Tensor:
    """How normal each step of a series is: the mean of what the windows over it say.

    Args:
        score: windows [N, length, C] to scores [N, length, C], the higher the more normal; for
            instance ``lambda windows: model.score_samples(windows, per_feature=True)``.
        series: float [T, C].
        length: of a window, at most T.
        stride: steps from one window to the next, at most ``length``; the last window ends with
            the series, so that every step is in one.

    Returns:
        float64 [T]: summed over channels.

    Raises:
        ValueError: ``length`` or ``stride`` do not fit.
    """
    if series.ndim != 2 or not 1 <= length <= len(series) or not 1 <= stride <= length:
        raise ValueError(
            f"a series [T, C] needs windows of 1..T steps and strides no longer than a window, "
            f"not {list(series.shape)}, {length} and {stride}"
        )
    starts = torch.arange(0, len(series) - length + 1, stride)
    if int(starts[-1]) + length < len(series):
        starts = torch.cat([starts, torch.tensor([len(series) - length])])
    steps = starts[:, None] + torch.arange(length)
    found = score(series[steps]).double().sum(2).cpu()
    total = torch.zeros(len(series), dtype=torch.double).index_add_(
        0, steps.flatten(), found.flatten()
    )
    return total / torch.bincount(steps.flatten(), minlength=len(series))
