"""The sampling settings, with ranges and help, for command line, page and recipes; and how they are checked."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Annotated, Any, get_args, get_type_hints

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
