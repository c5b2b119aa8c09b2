"""The place of a decoder that published weights came without."""

from __future__ import annotations

from torch import Tensor

from vqtok.nn.conv import Stack


class AbsentDecoder(Stack):
    """Decodes nothing: a tokenizer with it encodes only.

    Args:
        dim: D, the dimension of a latent.
        downsample: pixels per latent, each way.
    """

    def __init__(self, dim: int, downsample: int) -> None:
        super().__init__()
        self.config = {"type": "absent", "dim": dim, "downsample": downsample}
        self.dim = dim
        self.downsample = downsample
        self.context = None

    def forward(self, latents: Tensor) -> Tensor:
        """Raises ValueError."""
        raise ValueError(
            "this tokenizer has no decoder: the weights that it was imported from hold only an "
            "encoder and a codebook"
        )
