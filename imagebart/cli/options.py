"""Options that several commands share, in groups: a command takes a group as one argument.

Names, types, help and ranges of the sampling options are those of `SamplingSettings`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

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
FIELDS = SamplingSettings.model_fields


class Sampling(dict[str, Any]):
    """The sampling settings by name; None: not given."""

    def over(self, defaults: SamplingSettings) -> SamplingSettings:
        """A model's settings, but for those that were given. Raises InputError for a value out of range."""
        return defaults.replace(**{name: value for name, value in self.items() if value is not None})


def command(app: typer.Typer, name: str | None = None) -> Callable[[Command], Command]:
    """Adds a function to an app as a command, by its name, arguments and docstring.

    An argument whose type is `Sampling` or a dataclass stands for the options that are its fields.
    """

    def add(function: Command) -> Command:
        arguments = inspect.signature(function, eval_str=True).parameters.values()
        groups = {one.name: _options(one.annotation) for one in arguments}

        @wraps(function)
        def run(**values: Any) -> None:
            for argument in arguments:
                if options := groups[argument.name]:
                    group = {option.name: values.pop(option.name) for option in options}
                    values[argument.name] = argument.annotation(**group)
            try:
                function(**values)
            except EOFError as error:  # which click takes for Ctrl-D
                raise InputError(f"A file ended too early: {error}") from error

        options = [option for one in arguments for option in groups[one.name] or [one.replace(kind=one.KEYWORD_ONLY)]]
        run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
        app.command(name)(run)
        return function

    return add


def _options(group: Any) -> list[inspect.Parameter]:
    """The options that a type of argument stands for; [] where it is one option itself."""
    if group is Sampling:
        hints = get_type_hints(SamplingSettings)
        return [_option(name, Annotated[hints[name] | None, _setting(name)], None) for name in FIELDS]
    if not is_dataclass(group):
        return []
    hints = get_type_hints(group, include_extras=True)
    return [
        _option(f.name, hints[f.name], inspect.Parameter.empty if f.default is MISSING else f.default)
        for f in fields(group)
    ]


def _setting(name: str) -> Any:
    """The help and the range of a sampling setting."""
    field = FIELDS[name]
    limits = {
        keyword: getattr(part, bound)
        for part in field.metadata
        for keyword, bound in (("min", "ge"), ("max", "le"))
        if hasattr(part, bound)
    }
    return typer.Option(help=field.description, rich_help_panel="Sampling, as the model's own if not given", **limits)


def _option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def output_folder(text: str) -> Path:
    """A folder that is there or can be made; raises BadParameter for an empty name, a file, or a folder in a file."""
    path = Path(text)
    if not text.strip():
        raise typer.BadParameter("the name is empty; name a folder.")
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise typer.BadParameter(f"{place} is a file; name a folder.")
    return path
