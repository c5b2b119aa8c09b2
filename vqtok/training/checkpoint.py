"""Training state on disk: one safetensors file, replaced atomically, never a pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vqtok.errors import DataError
from vqtok.files import atomic_write
from vqtok.training.players import Player, under

CHECKPOINT_NAME = "checkpoint.safetensors"


def save_checkpoint(
    folder: Path,
    *,
    step: int,
    run: dict[str, Any],
    players: Mapping[str, Player],
    average: dict[str, Tensor],
) -> None:
    """Write the state after ``step`` steps.

    Args:
        folder: of the run.
        step: steps done.
        run: the JSON-able description that a resuming run must match.
        players: who learns, by the prefix of their tensors' names ("" for the model).
        average: the running mean of the model's parameters, by name.
    """
    tensors = {f"average.{name}": tensor for name, tensor in average.items()}
    for prefix, player in players.items():
        tensors |= {f"{prefix}{name}": value for name, value in player.tensors().items()}
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
    players: Mapping[str, Player],
    average: dict[str, Tensor],
) -> None:
    """Put a checkpoint's tensors back in place; DataError if they are not these players'."""
    try:
        for prefix, player in players.items():
            player.restore(under(prefix, tensors))
        saved = under("average.", tensors)
        for name, tensor in average.items():
            tensor.copy_(saved[name])
    except (RuntimeError, KeyError) as error:
        raise DataError(f"{path} does not fit the model: {error}") from error


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
