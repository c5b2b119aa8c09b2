"""Components from their configs: one function for all registries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

Component = TypeVar("Component")


def build(kind: str, registry: Mapping[str, type[Component]], config: Any) -> Component:
    """The component that a config (``{"type": name, **arguments}``) describes.

    Raises:
        ValueError: the type is unknown or an argument is out of range.
        TypeError: an argument is missing or unknown.
    """
    arguments = dict(config)
    name = arguments.pop("type", None)
    if name not in registry:
        raise ValueError(f"unknown {kind} type {name!r}, expected one of {list(registry)}")
    return registry[name](**arguments)
