"""The one composition behind every variant: encoder, bottleneck, decoder, reconstruction loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtok.nn import Stack, build_decoder, build_encoder
from vqtok.quantizers import Quantizer, build_quantizer


def charbonnier(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Mean of sqrt(error^2 + 1e-6): nearly absolute error, smooth at zero."""
    return ((reconstruction - target).square() + 1e-6).sqrt().mean()


RECONSTRUCTION_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": F.mse_loss,
    "charbonnier": charbonnier,
}


@dataclass(frozen=True)
class Reconstruction:
    """What an autoencoder makes of a batch.

    Attributes:
        output: the reconstruction, shaped like the input.
        latents: [..., D], what the encoder gave the bottleneck.
        codes: int64 [..., Q].
        losses: unweighted scalar terms, ``reconstruction`` first.
        metrics: detached tensors of the bottleneck.
    """

    output: Tensor
    latents: Tensor
    codes: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Autoencoder(nn.Module):
    """Encoder, quantizer and decoder with their losses.

    Args:
        encoder: images [B, C, H, W] in [-1, 1] to latents [..., D].
        quantizer: the bottleneck.
        decoder: latents [..., D] to images.
        reconstruction_loss: a name in :data:`RECONSTRUCTION_LOSSES`.
        loss_weights: the weight of each named term in the total; terms that are not named
            weigh 1.
    """

    def __init__(
        self,
        encoder: Stack,
        quantizer: Quantizer,
        decoder: Stack,
        *,
        reconstruction_loss: str = "mse",
        loss_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        if reconstruction_loss not in RECONSTRUCTION_LOSSES:
            raise ValueError(
                f"unknown reconstruction loss {reconstruction_loss!r}, "
                f"expected one of {list(RECONSTRUCTION_LOSSES)}"
            )
        self.encoder: Stack = encoder
        self.quantizer: Quantizer = quantizer
        self.decoder: Stack = decoder
        self.reconstruction_loss = reconstruction_loss
        self.loss_weights = dict(loss_weights or {})

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able description, from which :func:`build_autoencoder` rebuilds the modules."""
        return {
            "encoder": self.encoder.config,
            "quantizer": self.quantizer.config,
            "decoder": self.decoder.config,
            "reconstruction_loss": self.reconstruction_loss,
            "loss_weights": self.loss_weights,
        }

    def forward(
        self, inputs: Tensor, mask: Tensor | None = None, *, step: int | None = None
    ) -> Reconstruction:
        """Reconstruct a batch and measure it."""
        latents: Tensor = self.encoder(inputs)
        quantized = self.quantizer(latents)
        output: Tensor = self.decoder(quantized.quantized)
        loss = RECONSTRUCTION_LOSSES[self.reconstruction_loss](output.float(), inputs.float())
        return Reconstruction(
            output,
            latents,
            quantized.codes,
            {"reconstruction": loss, **quantized.losses},
            quantized.metrics,
        )

    def total_loss(self, losses: Mapping[str, Tensor], step: int | None = None) -> Tensor:
        """The weighted sum of the terms."""
        return torch.stack(
            [self.loss_weights.get(name, 1.0) * loss for name, loss in losses.items()]
        ).sum()


def build_autoencoder(config: Mapping[str, Any]) -> Autoencoder:
    """The autoencoder that a config describes, freshly initialised.

    Raises:
        ValueError, TypeError: a type or argument is unknown, missing or out of range.
    """
    return Autoencoder(
        build_encoder(config["encoder"]),
        build_quantizer(config["quantizer"]),
        build_decoder(config["decoder"]),
        reconstruction_loss=config["reconstruction_loss"],
        loss_weights=config["loss_weights"],
    )
