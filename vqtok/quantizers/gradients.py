"""How gradients pass a quantizer, whose forward step is a jump."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def straight_through(latents: Tensor, quantized: Tensor) -> Tensor:
    """``quantized`` forward, the identity backward (Bengio et al., 2013, arXiv:1308.3432).

    Args:
        latents: float [..., D], receives the gradient.
        quantized: float [..., D], receives none.
    """
    if not latents.requires_grad:
        return quantized.detach()
    passed: Tensor = _StraightThrough.apply(latents, quantized)  # type: ignore[no-untyped-call]
    return passed


class _StraightThrough(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(latents: Tensor, quantized: Tensor) -> Tensor:
        return quantized.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def rotation_trick(latents: Tensor, quantized: Tensor) -> Tensor:
    """Rotate and rescale latents onto ``quantized``, as constants of the backward pass.

    The gradient is then carried by the same rotation, so that its angle to the codebook vector
    survives (Fifty et al., 2024, arXiv:2410.06424). The rotation is a product of two Householder
    reflections and never forms a D x D matrix.

    Args:
        latents: float [..., D], receives the rotated gradient.
        quantized: float [..., D], receives none.
    """
    with torch.no_grad():
        tiny = torch.finfo(latents.dtype).tiny
        latent_norm = latents.norm(dim=-1, keepdim=True).clamp_min(tiny)
        quantized_norm = quantized.norm(dim=-1, keepdim=True)
        source = latents / latent_norm
        target = quantized / quantized_norm.clamp_min(tiny)
        bisector = F.normalize(source + target, dim=-1, eps=1e-12)
        scale = quantized_norm / latent_norm
    projected = (latents * bisector).sum(-1, keepdim=True)
    along = (latents * source).sum(-1, keepdim=True)
    rotated: Tensor = scale * (latents - 2 * projected * bisector + 2 * along * target)
    # The rotation only shapes the gradient: rounding would move the forward value a little, and
    # opposite vectors have no bisector.
    return quantized.detach() + (rotated - rotated.detach())


GRADIENTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "straight_through": straight_through,
    "rotation": rotation_trick,
}
