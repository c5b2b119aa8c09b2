"""No bottleneck but the number of latent dimensions."""

from __future__ import annotations

from torch import Tensor

from vqtok.autoencoders.bottlenecks.base import Bottleneck, Squeezed


class IdentityBottleneck(Bottleneck):
    """Latents pass as they are.

    Args:
        dim: of a latent.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.config = {"type": "identity", "dim": dim}
        self.dim = self.out_dim = dim

    def forward(
        self, latents: Tensor, mask: Tensor | None = None, *, step: int | None = None
    ) -> Squeezed:
        return Squeezed(latents)
