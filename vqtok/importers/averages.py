"""Running averages of weights that checkpoints of PyTorch Lightning keep beside the weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vqtok.errors import DataError

_PREFIX = "model_ema."
_TRAINED = ("encoder.", "decoder.")


def averaged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, each with its running average in its place if there is one.

    The averages of latent-diffusion's ``LitEma`` are named like the weights, without the dots.

    Raises:
        DataError: some weights of the encoder and decoder have one, others do not.
    """
    found = {}
    for name, tensor in tensors.items():
        if name.startswith(_PREFIX):
            continue
        average = _PREFIX + name.replace(".", "")
        if average not in tensors and name.startswith(_TRAINED) and has_averages(tensors):
            raise DataError(f"'{average}' is missing: other weights have running averages")
        found[name] = tensors.get(average, tensor)
    return found


def has_averages(tensors: Mapping[str, Tensor]) -> bool:
    """Whether there are any."""
    return any(name.startswith(_PREFIX) for name in tensors)
