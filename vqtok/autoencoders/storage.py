"""Models on disk: ``config.json`` beside ``model.safetensors``, identified by a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vqtok.errors import DataError
from vqtok.files import atomic_write

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
CONFIG_FORMAT = 1

# How float32 is stored if nothing is lost, shortest first.
_SHORT = (torch.float8_e4m3fn, torch.float16)

Module = TypeVar("Module", bound=nn.Module)

# What a config or a weights file can make the constructors raise.
_LOADING_ERRORS = (
    SafetensorError,
    OSError,
    RuntimeError,
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


def save_model(folder: Path, model: nn.Module, description: Mapping[str, Any]) -> None:
    """Write ``config.json`` and ``model.safetensors`` into a folder, made if needed.

    Tensors that float16 or float8 (e4m3) holds without loss are stored in it; :func:`load_model`
    widens them.

    Args:
        folder: where to.
        model: its parameters and buffers are stored.
        description: JSON-able; becomes the config beside the key ``format``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: _narrow(value) for name, value in _state(model).items()}
    config = {"format": CONFIG_FORMAT, **description}
    with atomic_write(folder / WEIGHTS_NAME) as file:
        file.write(save(tensors))
    with atomic_write(folder / CONFIG_NAME) as file:
        file.write((json.dumps(config, indent=2) + "\n").encode())


def read_config(folder: Path, types: Mapping[str, type]) -> dict[str, Any]:
    """The description that :func:`save_model` stored.

    Args:
        folder: of the model.
        types: keys that it must have, and the type of each value.

    Raises:
        DataError: there is none, or not one that this version reads.
    """
    path = folder / CONFIG_NAME
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict) or config.get("format") != CONFIG_FORMAT:
        raise DataError(
            f"{path} is not a model config of format {CONFIG_FORMAT}; "
            f"it may need another version of vqtok"
        )
    for key, kind in types.items():
        if not isinstance(config.get(key), kind):
            raise DataError(f"{path} lacks {key!r}, or it is not a {kind.__name__}")
    return config


def load_model(folder: Path, build: Callable[[], Module]) -> Module:
    """What ``build`` makes, with the stored weights in it.

    Raises:
        DataError: it cannot be built, or the weights are damaged or do not fit.
    """
    try:
        with _default_float32():
            model = build()
        tensors = load_file(folder / WEIGHTS_NAME)
        model.load_state_dict({name: _widen(value) for name, value in tensors.items()}, strict=True)
    except _LOADING_ERRORS as error:
        raise DataError(f"model {folder} cannot be loaded: {error}") from error
    return model


def fingerprint(parts: Mapping[str, Any], model: nn.Module) -> str:
    """sha256 in hex over JSON-able ``parts`` and over every tensor's name, shape and values."""
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    for name, value in sorted(_state(model).items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _default_float32() -> Iterator[None]:
    """Build modules in float32, whatever the caller's default is."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}


def _narrow(value: Tensor) -> Tensor:
    """The value in the shortest format that gives it back exactly."""
    if value.dtype == torch.float32:
        for dtype in _SHORT:
            narrow = value.to(dtype)
            if torch.equal(narrow.float(), value):
                return narrow
    return value


def _widen(value: Tensor) -> Tensor:
    return value.float() if value.dtype in _SHORT else value
