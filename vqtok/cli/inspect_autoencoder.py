"""``vqtok inspect`` of an autoencoder: what it is, and a page of pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqtok.cli.data_options import check_data_options
from vqtok.errors import UsageError

if TYPE_CHECKING:
    from vqtok.autoencoders import Autoencoder

_SAMPLES = 4096


def is_autoencoder(folder: Path) -> bool:
    """Whether a folder holds an autoencoder rather than a tokenizer."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and config.get("kind") == "autoencoder"


def autoencoder_facts(
    folder: Path,
    data: str | None,
    page: Path | None,
    *,
    key: str | None = None,
    size: int | None = None,
) -> dict[str, Any]:
    """What the model is; with data, how it does on them; writes the page."""
    from vqtok.autoencoders import Autoencoder
    from vqtok.nn.sequence import SequenceDecoder
    from vqtok.training.loading import load_samples
    from vqtok.training.page import autoencoder_page
    from vqtok.training.text_page import text_page

    if page is not None and page.suffix.lower() not in (".html", ".png"):
        raise UsageError(f"--page {page}: choose a name that ends in .html or .png")
    model = Autoencoder.from_pretrained(folder)
    sequences = isinstance(model.decoder, SequenceDecoder)
    if page is not None and is_of_text(model) and page.suffix.lower() == ".png":
        raise UsageError(f"--page {page}: a model of texts has no pictures; end the name in .html")
    check_data_options(data, key=key, size=size, sequences=sequences)
    if data is not None and sequences:
        return {"path": str(folder), **_sequence_facts(model, data, page, key)}
    samples = None
    if data is not None:
        samples = load_samples(data, key=key, size=size).samples[:_SAMPLES]
    if samples is not None and model.scaling is None:
        samples = samples.float()
    try:
        made = text_page(model) if is_of_text(model) else autoencoder_page(model, samples)
    except (ValueError, RuntimeError) as error:
        if samples is None:
            raise
        raise UsageError(f"{data} does not fit {folder}: {error}") from error
    if page is not None:
        made.write(page)
    return {"path": str(folder), **made.facts}


def is_of_text(model: Autoencoder) -> bool:
    """Whether its sequences are texts."""
    from vqtok.media.text import TEXT_SYMBOLS

    return getattr(model.decoder, "symbols", None) == TEXT_SYMBOLS


def _sequence_facts(
    model: Autoencoder, data: str, page: Path | None, key: str | None
) -> dict[str, Any]:
    """How a model of sequences does on windows of them, by their length."""
    from dataclasses import asdict, replace

    from vqtok.training.by_length import by_length
    from vqtok.training.fit_sequences import windows_for
    from vqtok.training.loading import load_sequences
    from vqtok.training.page import autoencoder_page
    from vqtok.training.text_page import text_page

    windows = windows_for(model, load_sequences(data, key=key))
    if is_of_text(model):
        made = text_page(model, windows)
    else:
        made = autoencoder_page(model, None if windows.mask is not None else windows.values)
    scores = [asdict(score) for score in by_length(model, windows)]
    made = replace(made, facts={**made.facts, "by_length": scores})
    if page is not None:
        made.write(page)
    return {**made.facts, **{title: list(lines) for title, lines in made.texts}}


def autoencoder_lines(facts: dict[str, Any]) -> list[str]:
    """The facts for people."""
    lines = [f"{facts['path']}: autoencoder {facts['name']!r}"]
    for key, value in facts.items():
        if key in ("path", "kind", "name", "by_length") or value is None:
            continue
        if key[0].isupper():  # texts
            lines += [f"  {key}", *(f"    {line}" for line in value)]
            continue
        if key == "provenance":  # the model was shown already
            value = {name: fact for name, fact in value.items() if name != "model"}
        shown = json.dumps(value) if isinstance(value, (dict, list)) else value
        shown = f"{value:.6g}" if isinstance(value, float) else shown
        lines.append(f"  {key.replace('_', ' '):20}  {shown}")
    return lines + _length_lines(facts.get("by_length", ()))


def _length_lines(scores: Any) -> list[str]:
    if not scores:
        return []
    from vqtok.training.by_length import LengthScore, length_table

    return length_table([LengthScore(**score) for score in scores]).splitlines()
