"""Dataclasses from plain JSON values, strictly: for model folders, training runs and recipes.

Pydantic checks types and ranges; what is wrong becomes one sentence with the path of the key.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

C = TypeVar("C")
Place = tuple[int | str, ...]

# Ranges of a network's shape: several times what is known to be of use, and nothing that would take minutes to refuse.
Width = Annotated[int, Field(ge=1, le=2**14)]
Depth = Annotated[int, Field(ge=0, le=256)]
Heads = Annotated[int, Field(ge=1, le=256)]
Vocabulary = Annotated[int, Field(ge=1, le=2**20)]
Length = Annotated[int, Field(ge=0, le=2**16)]  # of a sequence
Offset = Annotated[int, Field(ge=0, le=2**20)]  # in a vocabulary
Factor = Annotated[int, Field(ge=1, le=64)]
Glances = Annotated[int, Field(ge=0, le=16)]  # parts a side of a cell
Steps = Annotated[int, Field(ge=1, le=1000)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=2**40)]
Index = Annotated[int, Field(ge=0, le=2**40)]
Rate = Annotated[float, Field(ge=0, le=1e6)]
Positive = Annotated[float, Field(gt=0, le=1e6)]

RENAMED_KEYS = {"passes": "resamples"}  # old -> new: of model folders, training runs and recipes made before

LONGEST_VALUE = 60  # characters of a value in a sentence
EXPECTED = {  # by pydantic's names of errors
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "an object with named settings",
    "dataclass_type": "an object with named settings",
    "greater_than": "over {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "under {lt}",
    "less_than_equal": "at most {le}",
}


def from_dict(cls: type[C], values: Any, where: str = "") -> C:
    """Builds a (nested) dataclass; raises ValueError naming a key that is unknown, missing, of a wrong kind or range.

    where: what stands before the keys' names in a sentence, as "rewording.".
    """
    try:
        return TypeAdapter(cls).validate_json(json.dumps(_renamed(values)), strict=True, extra="forbid")
    except ValidationError as error:
        raise ValueError(_sentence(cls, error.errors(include_url=False), where)) from None
    except RecursionError:
        raise ValueError(f"{where or cls.__name__} is nested too deeply") from None


def _renamed(values: Any) -> Any:
    """JSON values with today's keys in place of old ones."""
    if isinstance(values, dict):
        return {RENAMED_KEYS.get(key, key): _renamed(value) for key, value in values.items()}
    return [_renamed(value) for value in values] if isinstance(values, list) else values


def _sentence(cls: type[Any], errors: Sequence[Any], where: str) -> str:
    """What is wrong first: an unknown key, before the one that it may have been meant for is missed."""
    error = min(errors, key=lambda one: one["type"] not in ("unexpected_keyword_argument", "extra_forbidden"))
    kind, place, value, context = error["type"], error["loc"], error["input"], error.get("ctx", {})
    name = _path(where, place)
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown setting {name!r}; known ones: {', '.join(sorted(_known(cls, place[:-1])))}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing" and isinstance(place[-1], str):
        return f"the setting {name!r} is missing"
    if kind == "missing":  # places of a list
        return _wrong(_path(where, place[:-1]), value, f"a list of {max(one['loc'][-1] for one in errors) + 1}")
    if kind == "too_long":
        return _wrong(name, value, f"a list of at most {context['max_length']}")
    if kind == "string_too_long":
        return f"{name} has {len(value):,} characters; it may have {context['max_length']:,}"
    if kind == "literal_error":
        return _wrong(name, value, f"one of {context['expected'].replace(' or ', ', ')}".replace("'", ""))
    expected = EXPECTED.get(kind, error["msg"].removeprefix("Input should be ")).format(**context)
    return _wrong(name or cls.__name__, value, expected)


def _path(where: str, place: Place) -> str:
    """A place as it is written: "stages[0].kind"."""
    return where + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def _known(cls: type[Any], place: Place) -> set[str]:
    """The names of the settings at a place."""
    for part in place:
        if isinstance(part, str):
            cls = next(_dataclasses(get_type_hints(cls)[part]))
    return {field.name for field in fields(cls)}


def _dataclasses(hint: Any) -> Iterator[type[Any]]:
    """Those that a type is or holds."""
    if is_dataclass(hint):
        yield hint  # type: ignore[misc]
    for part in get_args(hint):
        yield from _dataclasses(part)


def _wrong(name: str, value: Any, expected: str) -> str:
    shown = repr(value)
    return f"{name} is {shown if len(shown) <= LONGEST_VALUE else shown[:57] + '...'}, expected {expected}"
