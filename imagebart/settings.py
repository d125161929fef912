"""Settings as dataclasses, checked strictly: those of sampling, with ranges and help; and any, read from JSON.

Pydantic checks types and ranges; what is wrong becomes one sentence, which names the value and what would be right.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import lru_cache
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from imagebart.errors import InputError, format_value

MOST_SCALES = 8


def check_fields(instance: Any) -> None:
    """Checks a dataclass's values by their annotations, strictly; for `__post_init__`.

    A whole number becomes a float where one is wanted. Raises InputError naming the first value that does not fit, by
    its field's title or else its name, and what would be right.
    """
    cls: Any = type(instance)
    for field in fields(cls):
        value = getattr(instance, field.name)
        if str(getattr(value, "dtype", "")) == "bool":  # NumPy's, which pydantic takes for a number
            raise InputError(_sentence(cls, field.name, value))
        try:
            object.__setattr__(instance, field.name, _adapter(cls, field.name).validate_python(value, strict=True))
        except ValidationError as error:
            part = error.errors(include_url=False)[0]["input"]  # of a list, the element
            raise InputError(_sentence(cls, field.name, part)) from None


@dataclass(frozen=True)
class SliderRange:
    """The range and step of a setting's slider."""

    least: float
    most: float
    step: float


@dataclass(frozen=True)
class SamplingSettings:
    """Settings of one run of the chain. Raises InputError naming a value of another type, or out of range."""

    temperature: Annotated[
        float,
        SliderRange(0.1, 2, 0.05),
        Field(ge=0.01, le=100, description="Lower is plainer, higher more surprising."),
    ] = 1.0
    top_k: Annotated[
        int | None,
        SliderRange(0, 512, 1),
        Field(ge=1, le=2**31, title="top-k", description="Choose among this many likeliest tokens."),
    ] = None
    top_p: Annotated[
        float | None,
        SliderRange(0.05, 1, 0.01),
        Field(gt=0, le=1, title="top-p", description="Leave out the unlikeliest tokens; 1 means none."),
    ] = None
    guidance: Annotated[
        float, SliderRange(1, 8, 0.25), Field(ge=0, le=100, description="Higher follows your words more strictly.")
    ] = 1.0
    resamples: Annotated[
        int,
        SliderRange(1, 4, 1),
        Field(
            ge=1,
            le=100,
            title="number of resamples",
            description="How often each step is run, with noise in between; more are tidier, and take longer.",
        ),
    ] = 1
    start: Annotated[
        int | None,
        SliderRange(1, MOST_SCALES, 1),
        Field(
            ge=1,
            le=2**31,
            title="first stage",
            description="Edits that start at a finer step (lower) keep more of what was.",
        ),
    ] = None
    scales: Annotated[
        int | None,
        SliderRange(1, MOST_SCALES, 1),
        Field(
            ge=1,
            le=MOST_SCALES,
            title="number of scales",
            description="One is quickest; more first lay out, then refine.",
        ),
    ] = None
    corrector_steps: Annotated[
        int,
        SliderRange(0, 4, 1),
        Field(
            ge=0,
            le=100,
            title="number of corrector steps",
            description="How often tokens that do not fit the others are sampled again at the end; 0 is never.",
        ),
    ] = 0
    corrector_threshold: Annotated[
        float,
        SliderRange(0.01, 0.5, 0.01),
        Field(
            ge=0,
            le=1,
            title="corrector threshold",
            description="Tokens that are less likely than this, given the others, are sampled again.",
        ),
    ] = 0.02
    temperatures: Annotated[
        tuple[float, ...], Field(description="A temperature for each scale, the finest first: 0.9,1,1.")
    ] = ()
    top_ks: Annotated[
        tuple[int, ...], Field(title="top-ks", description="A top-k for each scale, the finest first: 300,548.")
    ] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        for temperature in self.temperatures:
            SamplingSettings(temperature=temperature)
        for top_k in self.top_ks:
            SamplingSettings(top_k=top_k)

    def at(self, t: int) -> SamplingSettings:
        """The settings of scale t; 1 is the finest."""
        own: dict[str, Any] = {"temperatures": (), "top_ks": ()}
        if self.temperatures:
            own["temperature"] = self.temperatures[t - 1]
        if self.top_ks:
            own["top_k"] = self.top_ks[t - 1]
        return replace(self, **own)

    def check_scales(self, scales: int) -> None:
        """Raises InputError where there are not as many temperatures or top-ks as scales."""
        for name, values in (("temperatures", self.temperatures), ("top-ks", self.top_ks)):
            if len(values) not in (0, scales):
                raise InputError(f"There are {len(values)} {name}; there must be one for each of {scales} scales.")


def help_text(name: str) -> str:
    """A sampling setting's line of help."""
    return str(_field(SamplingSettings, name).description)


def slider_range(name: str) -> SliderRange:
    """The range of a sampling setting's slider."""
    return next(part for part in _field(SamplingSettings, name).metadata if isinstance(part, SliderRange))


def value_type(name: str) -> Any:
    """The type of a sampling setting's value: int or float."""
    annotation = _field(SamplingSettings, name).annotation
    return next((one for one in get_args(annotation) if one is not type(None)), annotation)


def allowed_values(cls: Any, name: str) -> str:
    """What a field takes, in words: "a number over 0 and at most 1"."""
    annotation, bounds = str(_field(cls, name).annotation), _bounds(cls, name)
    if "Literal" in annotation:
        kind = "one of " + annotation.partition("[")[2].rstrip("]")
    elif "str" in annotation:
        kind = "a text"
    elif "int" in annotation:
        kind = "a whole number"
    else:
        kind = "a number" if "float" in annotation else annotation.rpartition(".")[2].rstrip("'>")
    most = bounds.get("le")
    if "gt" in bounds:
        return f"{kind} over {bounds['gt']} and at most {most}"
    if "ge" not in bounds:
        return kind
    if most is None or most == 2**31:
        return f"{kind}, {bounds['ge']} or more"
    return f"{kind} from {bounds['ge']} to {most}"


def _sentence(cls: Any, name: str, value: object) -> str:
    title = _field(cls, name).title or name.replace("_", " ")
    longest = _bounds(cls, name).get("max_length")
    if longest is None or not isinstance(value, str):
        return f"The {title} is {format_value(value)}; it must be {allowed_values(cls, name)}."
    if len(value) > longest:
        return f"The {title} has {len(value):,} characters; it may have {longest:,}."
    return f"The {title} is {format_value(value)}, which holds half a character (a lone surrogate); leave that out."


@lru_cache
def _adapter(cls: Any, name: str) -> TypeAdapter[Any]:
    return TypeAdapter(get_type_hints(cls, include_extras=True)[name])


@lru_cache
def _field(cls: Any, name: str) -> FieldInfo:
    return FieldInfo.from_annotation(get_type_hints(cls, include_extras=True)[name])


def _bounds(cls: Any, name: str) -> dict[str, Any]:
    names, metadata = ("ge", "gt", "le", "max_length"), _field(cls, name).metadata
    return {name: getattr(part, name) for part in metadata for name in names if getattr(part, name, None) is not None}


# Dataclasses from plain JSON values: of model folders, training runs and recipes.

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
    "Substitution": {"by": "replacement", "coloured": "unless_colored"},
    "ColoredThing": {"leads": "lead_words"},
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
        raise ValueError(_first_error(cls, error.errors(include_url=False), where)) from None
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


def _first_error(cls: type[Any], errors: Sequence[Any], where: str) -> str:
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
