"""Dataclasses from plain JSON values, strictly: for model folders, training runs and recipes.

Pydantic checks types and ranges; what is wrong becomes one sentence with the path of the key.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from imagebart.errors import format_value

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
HintGrid = Annotated[int, Field(ge=0, le=16)]  # parts along a side of a patch
Steps = Annotated[int, Field(ge=1, le=1000)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=2**40)]
Index = Annotated[int, Field(ge=0, le=2**40)]
Rate = Annotated[float, Field(ge=0, le=1e6)]
Positive = Annotated[float, Field(gt=0, le=1e6)]

# Keys of files written by earlier versions, by the name of the dataclass that they are for: old key -> new key.
RENAMED_KEYS: dict[str, dict[str, str]] = {
    "FirstStageConfig": {"fold": "pixel_unshuffle", "shrink": "downscale"},
    "SamplingSettings": {"passes": "resamples"},
    "DenoiserConfig": {"knows_cut_cells": "partial_patches", "glances": "color_hint_grid"},
    "TextEncoderConfig": {"slots": "query_tokens", "phrase": "conv_width"},
    "TextConditioner": {"rewording": "prompt_rules"},
    "PromptRules": {
        "instead": "substitutions",
        "subjects": "things",
        "stops": "stop_words",
        "links": "link_words",
    },
    "Substitution": {"by": "replacement", "coloured": "unless_coloured"},
    "ColouredThing": {"leads": "lead_words"},
    "StageShape": {"slots": "query_tokens", "phrase": "conv_width"},
    "FirstStageLoss": {"dead_after": "dead_code_threshold"},
    "AdversarialLoss": {"begin": "start_step", "matching": "feature_matching_weight"},
    "FirstStageRun": {"begin_from": "init_from"},
    "CaptionsRun": {"begin_from": "init_from"},
    "ReaderRun": {"wear": "augment"},
    "ModelRun": {"begin_from": "init_from", "share": "first_stage_share"},
    "StageRun": {
        "begin_from": "init_from",
        "scramble": "decoder_corruption",
        "drop": "conditioning_dropout",
        "soft": "soft_targets",
    },
    "StoreIndex": {"held": "held_out"},
    "DenoiserRun": {
        "begin_from": "init_from",
        "scramble": "decoder_corruption",
        "glances": "color_hint_grid",
        "drop_glances": "color_hint_dropout",
        "drop_slots": "query_token_dropout",
        "drop": "conditioning_dropout",
        "drafts": "draft_weight",
    },
}
# Their values: by dataclass and new key, old value -> new value.
RENAMED_VALUES: dict[str, dict[str, dict[str, str]]] = {
    "FirstStageConfig": {"encoder": {"cells": "patch"}, "decoder": {"patterns": "layered"}},
}

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

    Keys and values of earlier versions are read as what they are called now. where: what stands before the keys' names
    in a sentence, as "prompt_rules.".
    """
    try:
        current = with_current_names(cls, values)
        return TypeAdapter(cls).validate_json(json.dumps(current), strict=True, extra="forbid")
    except ValidationError as error:
        raise ValueError(_sentence(cls, error.errors(include_url=False), where)) from None
    except RecursionError:
        raise ValueError(f"{where or cls.__name__} is nested too deeply") from None


def with_current_names(hint: Any, value: Any) -> Any:
    """JSON for a type, with the keys and values in it that had other names before (RENAMED_KEYS, RENAMED_VALUES)."""
    if isinstance(value, list):
        return [with_current_names(hint, item) for item in value]
    cls = next(_dataclasses(hint), None)
    if not isinstance(value, dict) or cls is None:
        return value
    keys, values = RENAMED_KEYS.get(cls.__name__, {}), RENAMED_VALUES.get(cls.__name__, {})
    hints: dict[str, Any] = get_type_hints(cls)
    current: dict[str, Any] = {}
    key: str
    for key, item in value.items():
        name = keys.get(key, key)
        if name != key and name in value:
            name = key  # old and new at once: refused as unknown
        renamed = values.get(name, {})
        item = renamed.get(item, item) if isinstance(item, str) else item
        current[name] = with_current_names(hints.get(name), item)
    return current


def _sentence(cls: type[Any], errors: Sequence[Any], where: str) -> str:
    """What is wrong first: an unknown key, before the one that it may have been meant for is missed."""
    error = min(errors, key=lambda one: one["type"] not in ("unexpected_keyword_argument", "extra_forbidden"))
    kind, place, value, context = error["type"], error["loc"], error["input"], error.get("ctx", {})
    name = _path(where, place)
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown setting {format_value(name)}; known ones: {', '.join(sorted(_known(cls, place[:-1])))}"
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
    expected = EXPECTED[kind].format(**context) if kind in EXPECTED else error["msg"].removeprefix("Input should be ")
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
    return f"{name} is {format_value(value)}, expected {expected}"
