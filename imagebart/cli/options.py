"""Options that several commands share, in groups: a command takes a group as one argument.

Ranges, help and defaults of the sampling options are those of `SamplingSettings`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import typer

from imagebart.errors import InputError
from imagebart.settings import SamplingSettings

DEFAULT_MODEL = "avatars"  # which comes with the package, see `imagebart.weights.locate`
Model = Annotated[
    str, typer.Option(help="Folder of a model, avatars, a published model's name, or owner/name on the Hub.")
]
Data = Annotated[
    str | None, typer.Option(help="Folder of images (metadata.jsonl: captions; folders: classes), or a Hub name.")
]
# Those whose default is what a model is best used with, not the settings' own.
OF_THE_MODEL = ("temperature", "guidance", "scales")

Command = Callable[..., None]
S = TypeVar("S", bound="Sampling")


class Sampling(dict[str, Any]):
    """The sampling settings that were given, by name."""

    LEFT_OUT: tuple[str, ...] = ()

    @classmethod
    def options(cls) -> list[inspect.Parameter]:
        names = [name for name in SamplingSettings.model_fields if name not in cls.LEFT_OUT]
        return [_option(name, Annotated[value_type(name) | None, _setting(name)], None) for name in names]

    def over(self, defaults: SamplingSettings) -> SamplingSettings:
        """The defaults, but for the settings that were given. Raises InputError for a value out of range."""
        given = {name: value for name, value in self.items() if value is not None}
        return defaults.replace(**given)


class ScaledSampling(Sampling):
    """For jobs that choose the scales themselves."""

    LEFT_OUT = ("scales",)


def command(app: typer.Typer, name: str | None = None) -> Callable[[Command], Command]:
    """Adds a function to an app as a command, by its name, arguments and docstring.

    An argument whose type is a dataclass of options, or has an `options()` of its own, becomes those options.
    """

    def add(function: Command) -> Command:
        own = list(inspect.signature(function, eval_str=True).parameters.values())
        groups = {one.name: (one.annotation, _options(one.annotation)) for one in own}
        flat = [option for one in own for option in groups[one.name][1] or [one.replace(kind=one.KEYWORD_ONLY)]]

        def run(**values: Any) -> None:
            for argument, (group, options) in groups.items():
                if options:
                    values[argument] = group(**{option.name: values.pop(option.name) for option in options})
            try:
                function(**values)
            except EOFError as error:  # which click takes for Ctrl-D
                raise InputError(f"A file ended too early: {error}") from error

        run.__name__, run.__doc__ = function.__name__, function.__doc__
        run.__annotations__ = {option.name: option.annotation for option in flat}
        run.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
        app.command(name)(run)
        return function

    return add


def output_folder(text: str) -> Path:
    """A folder that is there or can be made; raises BadParameter for an empty name, a file, or a folder in a file."""
    path = Path(text)
    if not text.strip():
        raise typer.BadParameter("the name is empty; name a folder.")
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise typer.BadParameter(f"{place} is a file; name a folder.")
    return path


def _options(group: Any) -> list[inspect.Parameter]:
    """The options that a type of argument stands for; [] where it is one option itself."""
    if is_dataclass(group):
        hints = get_type_hints(group, include_extras=True)
        empty = inspect.Parameter.empty
        return [_option(f.name, hints[f.name], empty if f.default is MISSING else f.default) for f in fields(group)]
    options: list[inspect.Parameter] = group.options() if hasattr(group, "options") else []
    return options


def _setting(name: str) -> Any:
    own = " The model's own if not given." if name in OF_THE_MODEL else ""
    return typer.Option(help=f"{SamplingSettings.model_fields[name].description}{own}")


def value_type(name: str) -> Any:
    """The type of a sampling setting's value: int or float."""
    annotation = SamplingSettings.model_fields[name].annotation
    return next((one for one in get_args(annotation) if one is not type(None)), annotation)


def _option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
