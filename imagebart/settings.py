"""How tokens are drawn: the settings that a person can turn. Their ranges and words stand here once.

The command line, recipes and endpoints all make these, so that a wrong type, a range overstepped, NaN and overflow are
the same sentence everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from functools import wraps
from typing import Annotated, Any, TypeVar, get_args

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from imagebart.errors import InputError

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=True)  # infinity is for ranges to judge; NaN is in none
LONGEST_VALUE = 40  # characters of a value in a sentence
MOST_SCALES = 8

C = TypeVar("C")


def refusing(cls: type[C]) -> type[C]:
    """For a pydantic dataclass: what it refuses is an InputError that names the field, the value and the range.

    Fields are called by their titles; those that have none by their names.
    """
    make: Callable[..., None] = cls.__init__

    @wraps(make)
    def __init__(self: C, *values: Any, **named: Any) -> None:
        try:
            make(self, *values, **named)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            cause = first.get("ctx", {}).get("error")
            if isinstance(cause, InputError):  # of a __post_init__
                raise cause from None
            raise InputError(_sentence(cls, first["loc"], first["input"], first["msg"])) from None

    cls.__init__ = __init__  # type: ignore[method-assign, assignment]
    return cls


@plain_dataclass(frozen=True)
class SliderRange:
    """The part of a range that a slider has, and its step."""

    least: float
    most: float
    step: float


@refusing
@dataclass(frozen=True, config=STRICT)
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
    temperatures: Annotated[
        tuple[float, ...], Field(description="A temperature for each scale, the finest first: 0.9,1,1.")
    ] = ()
    top_ks: Annotated[
        tuple[int, ...], Field(title="top-ks", description="A top-k for each scale, the finest first: 300,548.")
    ] = ()

    def __post_init__(self) -> None:
        for temperature in self.temperatures:
            SamplingSettings(temperature=temperature)
        for top_k in self.top_ks:
            SamplingSettings(top_k=top_k)

    def at(self, t: int) -> SamplingSettings:
        """The settings with which scale t is drawn, 1 being the finest."""
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
    """What a slider of a sampling setting offers."""
    return next(part for part in _field(SamplingSettings, name).metadata if isinstance(part, SliderRange))


def value_type(name: str) -> Any:
    """The type of a sampling setting's value, where it has one: int or float."""
    annotation = _field(SamplingSettings, name).annotation
    return next((one for one in get_args(annotation) if one is not type(None)), annotation)


def allowed_values(cls: type[Any], name: str) -> str:
    """What a field takes, in words: "a number over 0 and at most 1"."""
    field = _field(cls, name)
    return _expected(str(field.annotation), _bounds(field.metadata))


def format_value(value: object) -> str:
    """A value as it is said in a sentence: numbers plainly, everything else as in Python, shortened."""
    try:
        text = f"{value:g}" if isinstance(value, float) else repr(value)
    except Exception:  # a number of more digits than Python writes, a broken __repr__
        text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def _sentence(cls: type[Any], place: tuple[int | str, ...], value: object, message: str) -> str:
    name = place[0] if place else ""
    names = list(cls.__pydantic_fields__)
    if isinstance(name, int) and name < len(names):  # given by its place
        name = names[name]
    if not isinstance(name, str) or name not in names:  # an argument too many, or an unknown one
        return f"{cls.__name__} cannot be made with {format_value(place[-1] if place else value)}: {message[:100]}."
    field = _field(cls, name)
    title = field.title or name.replace("_", " ")
    bounds = _bounds(field.metadata)
    if "max_length" in bounds and isinstance(value, str):
        if len(value) <= bounds["max_length"]:
            shown = format_value(value)
            return f"The {title} is {shown}, which holds half a character (a lone surrogate); leave that out."
        return f"The {title} has {len(value):,} characters; it may have {bounds['max_length']:,}."
    return f"The {title} is {format_value(value)}; it must be {allowed_values(cls, name)}."


def _expected(annotation: str, bounds: dict[str, Any]) -> str:
    kind = "a whole number" if "int" in annotation else "a number" if "float" in annotation else annotation
    kind = "a text" if "str" in annotation else kind
    kind = ("one of " + annotation.partition("[")[2].rstrip("]")) if "Literal" in annotation else kind
    most = bounds.get("le")
    if "gt" in bounds:
        return f"{kind} over {bounds['gt']} and at most {most}"
    if "ge" not in bounds:
        return kind.rpartition(".")[2].rstrip("'>")
    if most is None or most == 2**31:
        return f"{kind}, {bounds['ge']} or more"
    return f"{kind} from {bounds['ge']} to {most}"


def _bounds(metadata: list[Any]) -> dict[str, Any]:
    names = ("ge", "gt", "le", "max_length")
    return {name: getattr(part, name) for part in metadata for name in names if getattr(part, name, None) is not None}


def _field(cls: type[Any], name: str) -> Any:
    return cls.__pydantic_fields__[name]
