"""What an autoencoder of texts does: what comes back of some, and new ones."""

from __future__ import annotations

from collections.abc import Iterable

from vqtok.autoencoders import Autoencoder
from vqtok.media.text import symbols_text
from vqtok.training.page import Page, model_facts
from vqtok.training.task import Inputs

_TEXTS = 8


def text_page(model: Autoencoder, windows: Inputs | None = None, *, seed: int = 0) -> Page:
    """Look at a model of texts, and at what it makes of some.

    Args:
        model: of the symbols of ``vqtok.media.text``.
        windows: int64 [N, T] of texts, and their mask.
        seed: of the samples.
    """
    texts: list[tuple[str, tuple[str, ...]]] = []
    if windows is not None:
        few = windows.values[:_TEXTS]
        mask = None if windows.mask is None else windows.mask[:_TEXTS]
        made = model.inverse_transform(model.transform(few, mask))
        pairs = zip(_texts(few), _texts(made), strict=True)
        lines = tuple(f"{old!r} {'=' if old == new else '!'} {new!r}" for old, new in pairs)
        texts.append(("Texts, and what comes back", lines))
    if model.density is not None:
        drawn = tuple(repr(text) for text in _texts(model.sample(_TEXTS, seed=seed)))
        texts.append(("Samples", drawn))
    return Page(model_facts(model), (), tuple(texts))


def _texts(batch: Iterable[object]) -> list[str]:
    return [symbols_text(symbols).decode(errors="replace") for symbols in batch]  # type: ignore[arg-type]
