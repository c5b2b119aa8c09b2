"""Running averages of weights that checkpoints of PyTorch Lightning keep beside the weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

_PREFIX = "model_ema."


def averaged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, each with its running average in its place if there is one.

    The averages of latent-diffusion's ``LitEma`` are named like the weights, without the dots.
    """
    return {
        name: tensors.get(_PREFIX + name.replace(".", ""), tensor)
        for name, tensor in tensors.items()
        if not name.startswith(_PREFIX)
    }


def has_averages(tensors: Mapping[str, Tensor]) -> bool:
    """Whether there are any."""
    return any(name.startswith(_PREFIX) for name in tensors)
