"""Options that several commands share, in groups: a command takes a group, a dataclass, as one argument."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from imagebart.core.errors import InputError
from imagebart.core.settings import SamplingSettings

DEFAULT_MODEL = "avatars"  # which comes with the package, see `imagebart.model.locate`
Model = Annotated[
    str, typer.Option(help="Folder of a model, avatars, a published model's name, or owner/name on the Hub.")
]
Data = Annotated[
    str | None, typer.Option(help="Folder of images (metadata.jsonl: captions; folders: classes), or a Hub name.")
]

Command = Callable[..., None]


def _setting(name: str) -> Any:
    """An option with the help and the range of a sampling setting."""
    field = SamplingSettings.model_fields[name]
    limits = {
        keyword: getattr(part, bound)
        for part in field.metadata
        for keyword, bound in (("min", "ge"), ("max", "le"))
        if hasattr(part, bound)
    }
    return typer.Option(help=field.description, rich_help_panel="Sampling, as the model's own if not given", **limits)


@dataclass
class Sampling:
    """The settings of `SamplingSettings`; None: not given."""

    temperature: Annotated[float | None, _setting("temperature")] = None
    top_k: Annotated[int | None, _setting("top_k")] = None
    top_p: Annotated[float | None, _setting("top_p")] = None
    guidance: Annotated[float | None, _setting("guidance")] = None
    resamples: Annotated[int | None, _setting("resamples")] = None
    scales: Annotated[int | None, _setting("scales")] = None
    corrector_steps: Annotated[int | None, _setting("corrector_steps")] = None
    corrector_threshold: Annotated[float | None, _setting("corrector_threshold")] = None

    def over(self, defaults: SamplingSettings) -> SamplingSettings:
        """A model's settings, but for those that were given. Raises InputError for a value out of range."""
        return defaults.replace(**{name: value for name, value in vars(self).items() if value is not None})


def command(app: typer.Typer, name: str | None = None) -> Callable[[Command], Command]:
    """Adds a function to an app as a command, by its name, arguments and docstring.

    An argument whose type is a dataclass stands for the options that are its fields.
    """

    def add(function: Command) -> Command:
        arguments = inspect.signature(function, eval_str=True).parameters.values()

        @wraps(function)
        def run(**values: Any) -> None:
            for argument in arguments:
                if group := _group(argument):
                    given = {option.name: values.pop(option.name) for option in _options(argument)}
                    values[argument.name] = group(**given)
            try:
                function(**values)
            except EOFError as error:  # which click takes for Ctrl-D
                raise InputError(f"A file ended too early: {error}") from error

        options = [option for argument in arguments for option in _options(argument)]
        run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
        app.command(name)(run)
        return function

    return add


def _group(argument: inspect.Parameter) -> Callable[..., Any] | None:
    """The dataclass of an argument that stands for several options."""
    return argument.annotation if is_dataclass(argument.annotation) else None  # type: ignore[return-value]


def _options(argument: inspect.Parameter) -> list[inspect.Parameter]:
    """The options that an argument stands for: the fields of its dataclass, or itself."""
    group = _group(argument)
    options = inspect.signature(group, eval_str=True).parameters.values() if group else [argument]
    return [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]


def output_folder(text: str) -> Path:
    """A folder that is there or can be made; raises BadParameter for an empty name, a file, or a folder in a file."""
    path = Path(text)
    if not text.strip():
        raise typer.BadParameter("the name is empty; name a folder.")
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise typer.BadParameter(f"{place} is a file; name a folder.")
    return path
