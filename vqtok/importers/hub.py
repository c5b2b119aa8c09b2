"""Checkpoints of the Hugging Face hub, through huggingface_hub (an extra)."""

from __future__ import annotations

import re
from pathlib import Path

from vqtok.errors import DataError, UsageError
from vqtok.importers.checkpoint import CONFIG_FILES, WEIGHT_FILES

PREFIX = "hub:"
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def fetch(name: str) -> Path:
    """Download the weights and the config of a repository, or find them in the local cache.

    Args:
        name: ``hub:owner/name`` or ``hub:owner/name@revision``.

    Returns:
        the folder they are in.

    Raises:
        UsageError: the name is none, or huggingface_hub is not installed.
        DataError: the hub cannot be reached, or has no such repository.
    """
    repository, _, revision = name.removeprefix(PREFIX).partition("@")
    if not _NAME.fullmatch(repository):
        raise UsageError(f"{name}: expected {PREFIX}owner/name, perhaps with @revision")
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise UsageError(
            f"{name} needs huggingface_hub: pip install huggingface_hub, or download the weights "
            "and name the file"
        ) from error
    wanted = [*WEIGHT_FILES, *CONFIG_FILES, *(f"{weights}.index.json" for weights in WEIGHT_FILES)]
    try:
        folder = huggingface_hub.snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=[*wanted, "*.safetensors", "*.pt", "*.pth", "*.ckpt"],
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0].removeprefix("Got: ")
        raise DataError(f"{name} cannot be downloaded: {reason}") from error
    return Path(folder)
