"""What the verbs of an autoencoder are given, checked before any work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vqtok.errors import UsageError
from vqtok.nn.sequence import SequenceDecoder
from vqtok.quantizers import Quantizer

if TYPE_CHECKING:
    from vqtok.autoencoders.autoencoder import Autoencoder


def check_data(model: Autoencoder, data: Any, mask: Any = None) -> None:
    """UsageError unless data are an array or tensor of finite numbers, shaped for the model.

    Masked places may hold anything.
    """
    _check_kind("data", data)
    if isinstance(model.decoder, SequenceDecoder):
        channels = model.decoder.channels
        shape: tuple[int | str, ...] = ("T",) if channels is None else ("T", channels)
        _check_shape("data", data.shape, shape)
    elif "shape" in model.encoder.config:
        _check_shape("data", data.shape, tuple(model.encoder.config["shape"]))
    _check_finite("data", data, mask)


def check_latents(model: Autoencoder, name: str, values: Any, size: int) -> None:
    """UsageError unless what is to be decoded are finite numbers [B, ..., size].

    If it is known how many latents a sample has, all of the shape is checked.
    """
    _check_kind(name, values)
    fixed = "shape" in model.encoder.config and model.density is not None
    if fixed and model.density is not None:
        _check_shape(name, values.shape, (*model.density.shape[:-1], size))
    elif len(values.shape) < 2 or values.shape[-1] != size:
        raise UsageError(f"{name} must be [N, ..., {size}], not {list(values.shape)}")
    _check_finite(name, values)


def check_codes(model: Autoencoder, codes: Any) -> None:
    """UsageError unless what is to be decoded are a quantizer's codes, or finite values."""
    bottleneck = model.bottleneck
    if not isinstance(bottleneck, Quantizer):
        check_latents(model, "values", codes, bottleneck.out_dim)
        return
    _check_kind("codes", codes)
    whole = codes.dtype.kind in "iu" if isinstance(codes, np.ndarray) else _is_whole(codes)
    if not whole:
        raise UsageError(f"codes must be integers, not {codes.dtype}")


def _is_whole(codes: Tensor) -> bool:
    return not (codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool)


def _check_kind(name: str, data: Any) -> None:
    if not isinstance(data, (Tensor, np.ndarray)):
        raise UsageError(f"{name} must be a tensor or a numpy array, not {type(data).__name__}")
    if isinstance(data, np.ndarray) and data.dtype.kind not in "fiub":
        raise UsageError(f"{name} must be numbers, not {data.dtype}")


def _check_shape(name: str, found: Any, shape: tuple[int | str, ...]) -> None:
    found = tuple(found)
    if len(found) == len(shape) + 1 and all(
        isinstance(side, str) or side == other for side, other in zip(shape, found[1:], strict=True)
    ):
        return
    advice = ": add a batch axis" if len(found) == len(shape) else ""
    expected = ", ".join(map(str, ("N", *shape)))
    raise UsageError(f"{name} must be [{expected}], not {list(found)}{advice}")


def _check_finite(name: str, data: Any, mask: Any = None) -> None:
    values = torch.from_numpy(data.copy()) if isinstance(data, np.ndarray) else data
    if not values.is_floating_point():
        return
    wrong = ~values.isfinite()
    if mask is not None:
        mask = torch.as_tensor(mask, device=wrong.device)
        wrong &= mask.reshape(mask.shape + (1,) * (wrong.ndim - mask.ndim))
    if bool(wrong.any()):
        place = wrong.nonzero()[0].tolist()
        raise UsageError(
            f"{name} [{', '.join(map(str, place))}] is {float(values[tuple(place)])} (counted "
            f"from 0): fill or drop NaN and Inf first"
        )
