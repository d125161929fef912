"""Settings: values from outside, checked once where they come in (a file, the command line, the page, the API)."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import Self

from imagebart.core.errors import InputError, format_value, plain

MOST_SCALES = 8
DEFAULT_STRENGTH = 0.5  # of a variation
DEFAULT_MODEL = "things"  # which comes with the package, see `imagebart.model.locate`

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

EXPECTED = {  # by pydantic's names of errors
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "literal_error": "one of {expected}",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "an object with named settings",
    "model_type": "an object with named settings",
    "greater_than": "over {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "under {lt}",
    "less_than_equal": "at most {le}",
}


class Settings(BaseModel):
    """Values that do not change, of exactly the declared types and no others.

    What people give goes through `parse`, `from_json` and `replace`, which raise InputError, not the constructor.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, **values: Any) -> Self:
        try:
            return cls(**values)
        except ValidationError as error:
            raise InputError(sentence(error)) from None

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise InputError(sentence(error)) from None

    def replace(self, **changes: Any) -> Self:
        return self.parse(**{**dict(self), **changes})


def sentence(error: ValidationError) -> str:
    """What is wrong first; an unknown setting, before the one that it may have been meant for is missed."""
    first = min(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    kind, value, context, message = first["type"], format_value(first["input"]), first.get("ctx", {}), first["msg"]
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).removeprefix(".")
    if kind == "value_error":
        return str(context["error"])
    if kind == "extra_forbidden":
        return f"unknown setting {format_value(name)}"
    if kind == "missing":
        return f"the setting {format_value(name)} is missing"
    if kind == "json_invalid":
        return message
    where = plain(name) or error.title  # a file's own keys are part of the name
    if kind not in EXPECTED and not message.startswith("Input should be "):
        return f"{where} is {value}: {message}"
    expected = EXPECTED[kind].format(**context) if kind in EXPECTED else message.removeprefix("Input should be ")
    return f"{where} is {value}, expected {expected}"


class SamplingSettings(Settings):
    """Settings of one run of the chain."""

    temperature: float = Field(default=1.0, ge=0.01, le=100, description="Lower is plainer, higher more surprising.")
    top_k: int | None = Field(default=None, ge=1, le=2**20, description="Choose among this many likeliest tokens.")
    top_p: float | None = Field(default=None, gt=0, le=1, description="Leave out the unlikeliest tokens; 1 means none.")
    guidance: float = Field(default=1.0, ge=0, le=100, description="Higher follows your words more strictly.")
    resamples: int = Field(
        default=1, ge=1, le=100, description="How often each step is run; more are tidier, and take longer."
    )
    scales: int | None = Field(
        default=None, ge=1, le=MOST_SCALES, description="One is quickest; more first lay out, then refine."
    )
    corrector_steps: int = Field(
        default=0, ge=0, le=100, description="How often unlikely tokens are sampled again at the end; 0 is never."
    )
    corrector_threshold: float = Field(
        default=0.02, ge=0, le=1, description="Tokens less likely than this, given the others, are sampled again."
    )
