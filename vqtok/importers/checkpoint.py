"""Checkpoints as they are published: named tensors and perhaps a config, read without running code.

Only tensors and plain containers are taken from pickles (``torch.load(weights_only=True)``).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vqtok.errors import DataError, UsageError

WEIGHT_FILES = (
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
)
"""What a folder calls its weights, first choice first; with ``.index.json`` if in several files."""

CONFIG_FILES = ("config.json", "params.json")

_WRAPPERS = ("state_dict", "model_state_dict", "model", "ema", "best_state", "module", "generator")
_MAX_WRAPPERS = 8
_PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".th")


@dataclass(frozen=True)
class Checkpoint:
    """What was read.

    Attributes:
        tensors: by the names that the checkpoint gives them.
        config: what lay beside them in JSON, or inside, or nothing.
        files: name -> sha256 in hex of every weights file read.
    """

    tensors: dict[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    def whole(self, name: str, default: int) -> int:
        """A setting that is a positive whole number; DataError if it is something else."""
        value = self.config.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise DataError(f"the config says {name} = {value!r}, expected a positive whole number")
        return value

    def bare(self) -> Checkpoint | None:
        """Without the wrapper that all names begin with (``module.``), None if there is none."""
        first = {name.partition(".")[0] for name in self.tensors}
        if len(first) != 1 or len(self.tensors) < 2 or not all("." in n for n in self.tensors):
            return None
        tensors = {name.partition(".")[2]: value for name, value in self.tensors.items()}
        return Checkpoint(tensors, self.config, self.files)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a file (safetensors, or a pickle of tensors) or a folder with one and its config.

    Raises:
        UsageError: there is no such file, or not one that can be read here.
        DataError: it is damaged, holds no tensors, or needs more than tensors to be unpickled.
    """
    path = Path(path)
    if path.is_dir():
        files = _weights_of(path)
        beside = path
    elif path.is_file():
        files = [path]
        beside = path.parent
    else:
        raise UsageError(f"{path}: no such file or folder")
    tensors: dict[str, Tensor] = {}
    inside: Mapping[str, Any] = {}
    for file in files:
        read, config = _read(file)
        tensors |= read
        inside = inside or config
    if not tensors:
        raise DataError(f"{path} holds no tensors")
    config = inside or _config_in(beside)
    return Checkpoint(tensors, config, {file.name: _sha256(file) for file in files})


def _weights_of(folder: Path) -> list[Path]:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = _json(index).get("weight_map")
            if not isinstance(shards, dict):
                raise DataError(f"{index} has no weight_map")
            names = sorted({str(shard) for shard in shards.values()})
            if any(Path(shard).name != shard for shard in names):
                raise DataError(f"{index} names files outside its folder")
            return [folder / shard for shard in names]
    kinds = (".safetensors", *_PICKLES)
    found = sorted(p for p in folder.iterdir() if p.suffix in kinds and p.is_file())
    if len(found) == 1:
        return found
    raise UsageError(
        f"{folder} holds {'several files of' if found else 'no'} weights"
        + (f" ({', '.join(p.name for p in found[:5])}): name the one" if found else "")
    )


def _damaged(path: Path, error: Exception) -> str:
    return (
        f"{path} is not a readable checkpoint: it is cut short or damaged, or was not written by "
        f"torch.save ({type(error).__name__}: {_first_line(error)})"
    )


def _read(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """The tensors of one file, and the config inside if it has any."""
    _check_binary(path)
    if path.suffix == ".safetensors":
        try:
            return load_file(path), {}
        except (SafetensorError, OSError, ValueError) as error:
            raise DataError(
                f"{path} is not a readable safetensors file, but cut short or damaged ({error}): "
                "download it again"
            ) from error
    if path.suffix not in _PICKLES:
        raise UsageError(
            f"{path}: weights are read from .safetensors and from {', '.join(_PICKLES)}"
        )
    try:
        # A Namespace is a bag of settings: publishers put one beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong is said below
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported operand" in str(error):  # no instruction that torch.save writes
            raise DataError(_damaged(path, error)) from error
        raise DataError(_refusal(path, error)) from error
    except Exception as error:  # bytes from anywhere make the unpickler raise anything
        raise DataError(_damaged(path, error)) from error
    return _unwrap(path, loaded)


def _check_binary(path: Path) -> None:
    """DataError for text: a page, an error message or a pointer that was downloaded instead."""
    if path.suffix not in (".safetensors", *_PICKLES):
        return
    try:
        with open(path, "rb") as file:
            head = file.read(256)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if head.startswith(b"version https://git-lfs"):
        raise DataError(
            f"{path} is a pointer of Git LFS, not the weights: fetch them (git lfs pull)"
        )
    # Eight bytes of length begin a safetensors file, of which all but three are zero.
    if len(head) > 8 and all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        line = head.decode(errors="replace").strip().splitlines() or [""]
        raise DataError(
            f"{path} is text, not weights ({line[0][:40]!r} ...): was something else downloaded?"
        )


def _unwrap(path: Path, loaded: object) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """The tensors in what was unpickled, under whatever wrappers, and the settings beside them.

    Raises:
        DataError: there is no dict, or it does not tell which tensors are meant.
    """
    settings: Mapping[str, Any] = {}
    if not isinstance(loaded, Mapping):
        raise DataError(f"{path} holds a {type(loaded).__name__}, expected a dict of tensors")
    for _ in range(_MAX_WRAPPERS):  # one that holds itself has no end
        if not isinstance(loaded, Mapping):
            break
        tensors = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
        if len(tensors) > 1:
            return tensors, settings
        metadata = loaded.get("metadata")
        if isinstance(metadata, Mapping) and isinstance(metadata.get("kwargs"), Mapping):
            settings = metadata["kwargs"]
        inner = [loaded[name] for name in _WRAPPERS if isinstance(loaded.get(name), Mapping)]
        if not inner:  # another name, if there is no choice
            held = {str(name): value for name, value in loaded.items() if _holds_tensors(value)}
            held = held or {str(k): v for k, v in loaded.items() if _holds_tensors(v, deep=True)}
            if len(held) > 1:
                raise DataError(
                    f"{path} holds several dicts of tensors ({', '.join(list(held)[:5])}): save "
                    "the one that is meant in a file of its own"
                )
            inner = list(held.values())
        loaded = inner[0] if inner else None
    return {}, settings


def _holds_tensors(value: object, *, deep: bool = False) -> bool:
    """Whether several tensors have names in a dict; ``deep``: or in the dicts in it."""
    waiting, seen = [value], set()
    while waiting:
        inner = waiting.pop()
        if not isinstance(inner, Mapping) or id(inner) in seen:
            continue
        seen.add(id(inner))  # one may hold itself
        named = [each for name, each in inner.items() if isinstance(name, str)]
        if sum(isinstance(each, Tensor) for each in named) > 1:
            return True
        waiting += named if deep else []
    return False


def _refusal(path: Path, error: pickle.UnpicklingError) -> str:
    reason = _first_line(error)
    for line in str(error).splitlines():
        if "Unsupported" in line or "GLOBAL" in line:
            reason = re.split(r" was not an allowed|\. Please use", line.strip())[0]
            break
    return (
        f"{path} is a pickle that would run code to be read ({reason}); vqtok reads tensors only. "
        "If you trust its source, convert it once yourself: safetensors.torch.save_file(TENSORS, "
        "'model.safetensors') of the dict of tensors in torch.load(FILE, weights_only=False)"
    )


def _config_in(folder: Path) -> Mapping[str, Any]:
    for name in CONFIG_FILES:
        if (folder / name).is_file():
            return _json(folder / name)
    return {}


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is not a JSON object")
    return value


def _first_line(error: Exception) -> str:
    """The first sentence of it; torch's go on to guess."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.split(r"\. (?=[A-Z])", lines[0])[0]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
