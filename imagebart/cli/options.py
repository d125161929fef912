"""Options that several commands share: a command takes a group of them as one argument."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from pydantic.fields import FieldInfo

from imagebart.core.errors import InputError
from imagebart.core.settings import SamplingSettings

Model = Annotated[
    str, typer.Option(help="Folder of a model, things, avatars, a published model's name, or owner/name on the Hub.")
]
Data = Annotated[
    str | None, typer.Option(help="Folder of images (metadata.jsonl: captions; folders: classes), or a Hub name.")
]

Sampling = Annotated[dict[str, Any], SamplingSettings]  # the settings that were given, by name

Command = Callable[..., None]


def command(app: typer.Typer, name: str | None = None) -> Callable[[Command], Command]:
    """Adds a function to an app as a command, by its name, docstring and arguments (see `_options`)."""

    def add(function: Command) -> Command:
        groups = [(argument, _options(argument)) for argument in inspect.signature(function).parameters.values()]

        @wraps(function)
        def run(**values: Any) -> None:
            for argument, options in groups:
                given = {option.name: values.pop(option.name) for option in options}
                if argument.annotation is Sampling:
                    given = {argument.name: {name: value for name, value in given.items() if value is not None}}
                elif is_dataclass(argument.annotation):
                    given = {argument.name: argument.annotation(**given)}  # type: ignore[operator]
                values |= given
            try:
                function(**values)
            except EOFError as error:  # which click takes for Ctrl-D
                raise InputError(f"A file ended too early: {error}") from error

        run.__signature__ = inspect.Signature([option for _, options in groups for option in options])  # type: ignore[attr-defined]
        app.command(name)(run)
        return function

    return add


def _options(argument: inspect.Parameter) -> list[inspect.Parameter]:
    """The options that an argument stands for: settings, the fields of its dataclass, or itself."""
    options: Iterable[inspect.Parameter] = [argument]
    if argument.annotation is Sampling:
        options = map(_setting, SamplingSettings.model_fields, SamplingSettings.model_fields.values())
    elif is_dataclass(argument.annotation):
        options = inspect.signature(argument.annotation).parameters.values()  # type: ignore[arg-type]
    return [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]


def _setting(name: str, field: FieldInfo) -> inspect.Parameter:
    """An option with the help and the range of a setting; None: not given."""
    bounds = (("min", "ge"), ("max", "le"))
    limits = {word: getattr(part, at) for part in field.metadata for word, at in bounds if hasattr(part, at)}
    option = typer.Option(help=field.description, rich_help_panel="Sampling, as the model's own if not given", **limits)
    kind: Any = Annotated[Optional[field.annotation], option]  # noqa: UP045
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)


def output_folder(text: str) -> Path:
    """A folder that is there or can be made; raises BadParameter for an empty name, a file, or a folder in a file."""
    path = Path(text)
    if not text.strip():
        raise typer.BadParameter("the name is empty; name a folder.")
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise typer.BadParameter(f"{place} is a file; name a folder.")
    return path
