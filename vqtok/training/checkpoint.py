"""Training state on disk: one safetensors file, replaced atomically, never a pickle."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vqtok.errors import DataError
from vqtok.files import atomic_write

CHECKPOINT_NAME = "checkpoint.safetensors"


def save_checkpoint(
    folder: Path,
    *,
    step: int,
    run: dict[str, Any],
    model: nn.Module,
    average: dict[str, Tensor],
    optimizer: torch.optim.AdamW,
) -> None:
    """Write the state after ``step`` steps.

    Args:
        folder: of the run.
        step: steps done.
        run: the JSON-able description that a resuming run must match.
        model: its parameters and buffers are stored.
        average: the running mean of the parameters, by name.
        optimizer: over ``model.parameters()`` in order.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"average.{name}": tensor for name, tensor in average.items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = value
    tensors = {name: value.cpu().contiguous() for name, value in sorted(tensors.items())}
    metadata = {
        "step": str(step),
        "run": json.dumps(run, sort_keys=True),
        "sha256": _digest(tensors),
    }
    with atomic_write(folder / CHECKPOINT_NAME) as file:
        file.write(save(tensors, metadata))


def read_checkpoint(folder: Path) -> tuple[int, dict[str, Any], dict[str, Tensor]]:
    """The steps done, the run's description and the tensors.

    Raises:
        DataError: the file is not a checkpoint of ours.
    """
    path = folder / CHECKPOINT_NAME
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        step, run = int(metadata["step"]), json.loads(metadata["run"])
        if _digest(dict(sorted(tensors.items()))) != metadata["sha256"]:
            raise ValueError("its checksum does not match")
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is damaged or not a training checkpoint ({error}); remove it to start again"
        ) from error
    return step, run, tensors


def restore(
    path: Path,
    tensors: dict[str, Tensor],
    model: nn.Module,
    average: dict[str, Tensor],
    optimizer: torch.optim.AdamW,
) -> None:
    """Put a checkpoint's tensors back in place; DataError if they are not this model's."""
    try:
        model.load_state_dict(_under("model.", tensors))
        saved = _under("average.", tensors)
        for name, tensor in average.items():
            tensor.copy_(saved[name])
    except (RuntimeError, KeyError) as error:
        raise DataError(f"{path} does not fit the model: {error}") from error
    for name, parameter in model.named_parameters():
        optimizer.state[parameter] = {
            key.removeprefix("optimizer.").split(".", 1)[0]: _like(parameter, tensor)
            for key, tensor in tensors.items()
            if key.startswith("optimizer.") and key.split(".", 2)[2] == name
        }


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """In the parameter's memory layout: the fused optimizer walks both in storage order."""
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, requires_grad=False).copy_(tensor)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): tensor
        for key, tensor in tensors.items()
        if key.startswith(prefix)
    }
