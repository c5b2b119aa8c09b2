"""The squared Frobenius norm of the encoder's Jacobian, exactly (Rifai et al. 2011)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from vqtok.autoencoders.penalties.base import Context, Penalty

# Rows of the Jacobian that are computed at once.
_COLUMNS = 32


class Contractive(Penalty):
    """Mean over the batch of ||d latents / d inputs||^2, as costly as a backward pass per latent.

    Latents that merely shrink lower it without contracting anything: tie the decoder to the
    encoder (``mlp_tied``) or look at :func:`relative_jacobian_norm`.
    """

    needs_input_gradient: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.config = {"type": "contractive"}

    def forward(self, context: Context) -> Tensor:
        return jacobian_square_norm(context.latents, context.inputs).mean()


def jacobian_square_norm(latents: Tensor, inputs: Tensor) -> Tensor:
    """||d latents_b / d inputs_b||^2 of each sample, float32 [B]; differentiable.

    Args:
        latents: [B, ...], computed from ``inputs`` sample by sample.
        inputs: [B, ...], requires a gradient.
    """
    columns = latents.flatten(1)
    chosen = torch.eye(columns.shape[1]).to(columns)[:, None].expand(-1, *columns.shape)
    total = columns.new_zeros(len(columns), dtype=torch.float32)
    for first in range(0, len(chosen), _COLUMNS):
        (gradients,) = torch.autograd.grad(
            columns,
            inputs,
            chosen[first : first + _COLUMNS],
            create_graph=True,
            is_grads_batched=True,
        )
        total = total + gradients.float().flatten(2).square().sum((0, 2))
    return total


def relative_jacobian_norm(encode: Callable[[Tensor], Tensor], inputs: Tensor) -> float:
    """Mean ||J||^2 in units of the data's and the latents' own variance.

    Multiplying latents (or inputs) by a constant does not change it. For a linear, whitening
    encoder it is the number of latents.

    Args:
        encode: [B, ...] to latents [B, ...].
        inputs: [B, ...], at least two.
    """
    with torch.enable_grad():
        inputs = inputs.detach().requires_grad_()
        latents = encode(inputs)
        norm = jacobian_square_norm(latents, inputs).detach().mean()
    spread = latents.detach().flatten(1).var(0).mean()
    return float(norm * inputs.detach().flatten(1).var(0).mean() / spread.clamp_min(1e-12))
