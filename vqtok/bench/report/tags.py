"""HTML out of Python: every text and attribute is escaped, whatever a file is called."""

from __future__ import annotations

import html
from collections.abc import Iterable

Text = str | int | None


class Markup(str):
    """A text that is HTML already, made by :func:`tag` or :func:`join`."""

    __slots__ = ()


VOID = {"br", "col", "hr", "img", "input", "meta"}


def escape(text: Text) -> Markup:
    """The text as HTML; Markup as it is, None as nothing."""
    if isinstance(text, Markup):
        return text
    if text is None:
        return Markup()
    clean = str(text).encode("utf-8", "backslashreplace").decode()  # lone surrogates of file names
    return Markup(html.escape(clean).replace("\0", "\\0"))


def join(parts: Iterable[Text]) -> Markup:
    """The parts one after the other."""
    return Markup("".join(map(escape, parts)))


def tag(name: str, *children: Text, **attributes: Text | bool) -> Markup:
    """An element: ``tag("a", "text", href="#x", class_="y", data_z=1)``.

    Attributes lose a final underscore, others become hyphens; None and False leave one out, True
    writes its name alone.
    """
    written = ""
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        written += f" {key}" if value is True else f' {key}="{escape(value)}"'
    if name in VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def section(name: str, title: str, *children: Text) -> Markup:
    """A part of the page, with its title."""
    return tag(
        "section",
        tag("h2", title, id=f"{name}-title"),
        *children,
        id=name,
        aria_labelledby=f"{name}-title",
    )
