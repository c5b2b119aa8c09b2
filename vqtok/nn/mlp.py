"""Fully connected encoder and decoder, for tables and for anything small that can be flattened."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from vqtok.nn.conv import Stack

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


class MLPEncoder(Stack):
    """Samples of one shape, flattened, to latents.

    Args:
        shape: of a sample.
        hidden: widths of the hidden layers; none makes it linear.
        dim: D, the dimension of a latent.
        positions: latents per sample, [B, P, D], for quantizers that code several; None for one
            latent per sample, [B, D].
        activation: after hidden layers, a name in :data:`ACTIVATIONS`.
        output: after the last layer; "sigmoid" for the classic sparse and contractive ones.
    """

    def __init__(
        self,
        shape: Sequence[int],
        hidden: Sequence[int],
        dim: int,
        *,
        positions: int | None = None,
        activation: str = "silu",
        output: str = "linear",
    ) -> None:
        super().__init__()
        _check(shape, hidden, dim, positions, activation, output)
        self.config = {
            "type": "mlp",
            "shape": list(shape),
            "hidden": list(hidden),
            "dim": dim,
            "positions": positions,
            "activation": activation,
            "output": output,
        }
        self.shape = tuple(shape)
        self.dim = dim
        self.positions = positions
        widths = [math.prod(shape), *hidden, dim * (positions or 1)]
        self.layers = _layers(widths, activation, output)

    def forward(self, inputs: Tensor) -> Tensor:
        """float [B, *shape] -> [B, D], or [B, P, D]."""
        if tuple(inputs.shape[1:]) != self.shape:
            raise ValueError(
                f"samples must have shape {list(self.shape)}, not {list(inputs.shape[1:])}"
            )
        latents: Tensor = self.layers(inputs.flatten(1))
        if self.positions is None:
            return latents
        return latents.reshape(-1, self.positions, self.dim)


class MLPDecoder(Stack):
    """Latents to samples: the mirror of :class:`MLPEncoder`.

    Args:
        shape: of a sample.
        hidden: widths of the hidden layers, in the encoder's order: the last is the first here.
        dim: D, the dimension of a latent.
        positions: as for the encoder.
        activation: after hidden layers.
    """

    def __init__(
        self,
        shape: Sequence[int],
        hidden: Sequence[int],
        dim: int,
        *,
        positions: int | None = None,
        activation: str = "silu",
    ) -> None:
        super().__init__()
        _check(shape, hidden, dim, positions, activation)
        self.config: dict[str, Any] = {
            "type": "mlp",
            "shape": list(shape),
            "hidden": list(hidden),
            "dim": dim,
            "positions": positions,
            "activation": activation,
        }
        self.shape = tuple(shape)
        self.dim = dim
        widths = [dim * (positions or 1), *reversed(hidden), math.prod(shape)]
        self.layers = _layers(widths, activation, "linear")

    def forward(self, latents: Tensor) -> Tensor:
        """[B, D], or [B, P, D] -> float [B, *shape]."""
        output: Tensor = self.layers(latents.flatten(1))
        return output.reshape(-1, *self.shape)


class TiedMLPDecoder(Stack):
    """The mirror of an :class:`MLPEncoder` with its own weights, transposed; only biases are new.

    Args:
        shape: of a sample.
        hidden: widths of the encoder's hidden layers.
        dim: D, the dimension of a latent.
        activation: after hidden layers.
    """

    def __init__(
        self, shape: Sequence[int], hidden: Sequence[int], dim: int, *, activation: str = "silu"
    ) -> None:
        super().__init__()
        _check(shape, hidden, dim, None, activation)
        self.config: dict[str, Any] = {
            "type": "mlp_tied",
            "shape": list(shape),
            "hidden": list(hidden),
            "dim": dim,
            "activation": activation,
        }
        self.shape = tuple(shape)
        self.dim = dim
        self.activation = ACTIVATIONS[activation]()
        widths = [*reversed(hidden), math.prod(shape)]
        self.biases = nn.ParameterList([nn.Parameter(Tensor(width).zero_()) for width in widths])
        self._encoder_layers: list[nn.Linear] = []  # a list, so that they stay the encoder's

    def pair(self, encoder: nn.Module) -> None:
        """Take the weights of this encoder; ValueError if it is not the mirror."""
        config = getattr(encoder, "config", {})
        same = all(self.config[key] == config.get(key) for key in ("shape", "hidden", "dim"))
        if not isinstance(encoder, MLPEncoder) or not same or encoder.positions is not None:
            raise ValueError(
                "mlp_tied needs an mlp encoder of the same shape, hidden and dim, "
                f"without positions, not {config}"
            )
        linear = [layer for layer in encoder.layers if isinstance(layer, nn.Linear)]
        self._encoder_layers = linear[::-1]

    def forward(self, latents: Tensor) -> Tensor:
        """[B, D] -> float [B, *shape]."""
        if not self._encoder_layers:
            raise ValueError("mlp_tied has no encoder yet: it works inside an Autoencoder")
        output = latents
        for number, (layer, bias) in enumerate(zip(self._encoder_layers, self.biases, strict=True)):
            output = F.linear(self.activation(output) if number else output, layer.weight.T, bias)
        return output.reshape(-1, *self.shape)


def _layers(widths: Sequence[int], activation: str, output: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
    layers[-1] = ACTIVATIONS[output]()
    return nn.Sequential(*layers)


def _check(
    shape: Sequence[int],
    hidden: Sequence[int],
    dim: int,
    positions: int | None,
    *activations: str,
) -> None:
    if not shape or min(*shape, *hidden, dim, positions or 1) < 1:
        raise ValueError(
            f"shape, hidden, dim and positions must be positive, "
            f"not {list(shape)}, {list(hidden)}, {dim}, {positions}"
        )
    for activation in activations:
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"unknown activation {activation!r}, expected one of {list(ACTIVATIONS)}"
            )
