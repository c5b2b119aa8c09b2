"""JSON to frozen dataclasses, by their types, strictly."""

from __future__ import annotations

import sys
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from vqtok.errors import DataError

Record = TypeVar("Record")


def read_fields(kind: type[Record], value: object, where: str) -> Record:
    """``value``, parsed JSON, as the dataclass ``kind``.

    Fields may be str, int, finite float, bool, Literal, None, unions of these, tuples (JSON
    arrays), dictionaries with string keys, and dataclasses. Fields with a default may be missing.

    Raises DataError that names ``where`` and the field for anything else, unknown fields included.
    """
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object, got {_short(value)}")
    known = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(value.keys() - known.keys())
    if unknown:
        raise DataError(f"{where}: unknown field {unknown[0]!r}")
    hints = get_type_hints(kind)
    made = {}
    for name, each in known.items():
        if name in value:
            made[name] = _read(hints[name], value[name], f"{where}: {name}")
        elif each.default is MISSING and each.default_factory is MISSING:
            raise DataError(f"{where}: the field {name!r} is missing")
    return kind(**made)


def _read(hint: Any, value: object, where: str) -> Any:
    if is_dataclass(hint) and isinstance(hint, type):
        return read_fields(hint, value, where)
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple and isinstance(value, list):
        return tuple(_read(inner[0], each, f"{where}[{i}]") for i, each in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _read(inner[1], each, f"{where}.{key}") for key, each in value.items()}
    if origin is Literal and value in inner:
        return value
    if origin in (Union, UnionType):
        if value is None and NoneType in inner:
            return None
        return _read(next(each for each in inner if each is not NoneType), value, where)
    if hint is float and isinstance(value, int | float) and _is_finite(value):
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    expected = " or ".join(map(repr, inner)) if origin is Literal else _name(hint)
    raise DataError(f"{where}: expected {expected}, got {_short(value)}")


def _is_finite(value: float) -> bool:
    return not isinstance(value, bool) and -sys.float_info.max <= value <= sys.float_info.max


def _name(hint: Any) -> str:
    names = {tuple: "an array", dict: "an object", float: "a finite number", int: "an integer"}
    names |= {str: "a string", bool: "true or false"}
    return names.get(get_origin(hint) or hint, str(hint))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
