"""The Jacobian's norm from random probes, for encoders with many latents."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from vqtok.autoencoders.penalties.base import Context, Penalty


class HutchinsonContractive(Penalty):
    """An unbiased estimate of :class:`Contractive`: ||J^T v||^2 with random signs v.

    The mean over v of v v^T is the identity, so the mean of ||J^T v||^2 is ||J||^2
    (Hutchinson 1989).

    Args:
        probes: draws of v per step, one backward pass each.
    """

    needs_input_gradient: ClassVar[bool] = True

    def __init__(self, probes: int = 1) -> None:
        super().__init__()
        if probes < 1:
            raise ValueError(f"probes must be at least 1, not {probes}")
        self.config = {"type": "contractive_hutchinson", "probes": probes}
        self.probes = probes

    @property
    def name(self) -> str:
        return "contractive"

    def forward(self, context: Context) -> Tensor:
        estimates = [_probe(context.latents, context.inputs) for _ in range(self.probes)]
        return torch.stack(estimates).mean()


def _probe(latents: Tensor, inputs: Tensor) -> Tensor:
    signs = torch.randint(0, 2, latents.shape, device=latents.device).to(latents.dtype) * 2 - 1
    (gradient,) = torch.autograd.grad((latents * signs).sum(), inputs, create_graph=True)
    return gradient.float().flatten(1).square().sum(1).mean()
