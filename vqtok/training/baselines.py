"""What every autoencoder must beat: the mean, and principal components at the same code size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vqtok.autoencoders import Autoencoder
from vqtok.autoencoders.bottlenecks import SparseBottleneck
from vqtok.quantizers import Quantizer


@dataclass(frozen=True)
class PCA:
    """Principal components of samples: float64 mean [F] and axes [k, F], of flattened samples.

    ``k = 0`` is the mean alone.
    """

    mean: Tensor
    axes: Tensor

    @classmethod
    def fit(cls, samples: Tensor, components: int) -> PCA:
        """From [N, ...]; no more components than samples and features allow."""
        rows = samples.double().flatten(1)
        mean = rows.mean(0)
        if components == 0:
            return cls(mean, rows.new_zeros(0, rows.shape[1]))
        # The smaller of the two Gram matrices holds the same axes.
        centred = rows - mean
        if rows.shape[1] <= len(rows):
            _, axes = torch.linalg.eigh(centred.T @ centred)
            return cls(mean, axes.T.flip(0)[:components])
        _, _, axes = torch.linalg.svd(centred, full_matrices=False)
        return cls(mean, axes[:components])

    def reconstruct(self, samples: Tensor) -> Tensor:
        """[N, ...] to the nearest points of the subspace, same shape, float32."""
        centred = samples.double().flatten(1) - self.mean
        found = centred @ self.axes.T @ self.axes + self.mean
        return found.view(samples.shape).float()

    def score_samples(self, samples: Tensor) -> Tensor:
        """Minus the squared distance from the subspace, [N]; for k = 0 from the mean."""
        error = self.reconstruct(samples) - samples.float()
        return -error.square().flatten(1).sum(1)


def code_size(model: Autoencoder, sample: Tensor, mask: Tensor | None = None) -> int:
    """How many numbers a sample's code is: what PCA may use beside the model.

    Of a sparse bottleneck the mean of its active latents; a quantizer's bits count as numbers of
    32 bits, rounded up.
    """
    code = model.transform(sample, mask)
    bottleneck = model.bottleneck
    if isinstance(bottleneck, Quantizer):
        bits = sum(math.log2(size) for size in bottleneck.codebook_sizes)
        return max(1, math.ceil(code[0, ..., 0].numel() * bits / 32))
    if isinstance(bottleneck, SparseBottleneck):
        return max(1, round(float((code != 0).flatten(1).sum(1).float().mean())))
    return code[0].numel()
