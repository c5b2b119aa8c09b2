"""With what weights were made, to be kept beside them."""

from __future__ import annotations

import os
import platform

import torch

from vqtok._version import __version__


def provenance() -> dict[str, str | int]:
    """Versions, machine and threads of this process."""
    return {
        "vqtok": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": _machine(),
        "threads": torch.get_num_threads(),
    }


def _machine() -> str:
    model = platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if "model name" in line]
        model = names[0] if names else model
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} cores"
