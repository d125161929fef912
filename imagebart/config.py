"""Dataclasses from plain JSON values, strictly: for model folders and training runs."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

C = TypeVar("C")

KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def from_dict(cls: type[C], values: Any, where: str = "") -> C:
    """Builds a (nested) dataclass; raises ValueError naming a key that is unknown, missing or of a wrong kind."""
    if not isinstance(values, Mapping):
        raise _wrong(where.rstrip(".") or cls.__name__, values, "an object with named settings")
    hints = get_type_hints(cls)
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"unknown setting {where + unknown[0]!r}; known ones: {', '.join(sorted(known))}")
    missing = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in missing if name not in values]
    if missing:
        raise ValueError(f"the setting {where + missing[0]!r} is missing")
    return cls(**{name: _convert(hints[name], value, where + name) for name, value in values.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    """The value as a field of this type holds it."""
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in options:
            return None
        return _convert(next(o for o in options if o is not type(None)), value, where)
    if origin is Literal:
        if value not in options:
            raise _wrong(where, value, f"one of {', '.join(map(str, options))}")
        return value
    if origin is tuple:
        return _convert_tuple(options, value, where)
    if is_dataclass(hint) and isinstance(hint, type):
        return from_dict(hint, value, f"{where}.")
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(where, value, "an object with named settings")
        return {name: _convert(options[1], item, f"{where}.{name}") for name, item in value.items()}
    if hint in KINDS and not _is_kind(hint, value):
        raise _wrong(where, value, KINDS[hint])
    return value


def _convert_tuple(options: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _wrong(where, value, "a list")
    hints = [options[0]] * len(value) if options[-1] is Ellipsis else list(options)
    if len(hints) != len(value):
        raise _wrong(where, value, f"a list of {len(hints)}")
    return tuple(_convert(hint, item, f"{where}[{i}]") for i, (hint, item) in enumerate(zip(hints, value, strict=True)))


def _is_kind(kind: type, value: Any) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)


def _wrong(where: str, value: Any, expected: str) -> ValueError:
    shown = repr(value)
    return ValueError(f"{where} is {shown if len(shown) <= 60 else shown[:57] + '...'}, expected {expected}")
