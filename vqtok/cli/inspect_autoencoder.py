"""``vqtok inspect`` of an autoencoder: what it is, and a page of pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vqtok.errors import UsageError

_SAMPLES = 4096


def is_autoencoder(folder: Path) -> bool:
    """Whether a folder holds an autoencoder rather than a tokenizer."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and config.get("kind") == "autoencoder"


def autoencoder_facts(folder: Path, data: str | None, page: Path | None) -> dict[str, Any]:
    """What the model is; with data, how it does on them; writes the page."""
    from vqtok.autoencoders import Autoencoder
    from vqtok.training.loading import load_samples
    from vqtok.training.page import autoencoder_page

    if page is not None and page.suffix.lower() not in (".html", ".png"):
        raise UsageError(f"--page {page}: choose a name that ends in .html or .png")
    model = Autoencoder.from_pretrained(folder)
    samples = None if data is None else load_samples(data).samples[:_SAMPLES]
    if samples is not None and model.scaling is None:
        samples = samples.float()
    try:
        made = autoencoder_page(model, samples)
    except (ValueError, RuntimeError) as error:
        if samples is None:
            raise
        raise UsageError(f"{data} does not fit {folder}: {error}") from error
    if page is not None:
        made.write(page)
    return {"path": str(folder), **made.facts}


def autoencoder_lines(facts: dict[str, Any]) -> list[str]:
    """The facts for people."""
    lines = [f"{facts['path']}: autoencoder {facts['name']!r}"]
    for key, value in facts.items():
        if key in ("path", "kind", "name") or value is None:
            continue
        shown = json.dumps(value) if isinstance(value, (dict, list)) else value
        shown = f"{value:.6g}" if isinstance(value, float) else shown
        lines.append(f"  {key.replace('_', ' '):20}  {shown}")
    return lines
