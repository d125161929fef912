"""Runs a command of the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from imagebart.cli import draw, evaluate, models, train
from imagebart.cli.options import DEFAULT_MODEL, Model, command
from imagebart.errors import plain

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help="Masked, prompted edits by ImageBART.")
command(evaluate.app)(train.folder)
app.add_typer(draw.app)
app.add_typer(models.app)
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(train.app, name="train")

BAD_INPUT, STOPPED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code: 2 with one sentence on standard error for bad input."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(given, prog_name="imagebart", standalone_mode=False) or 0
    except (TyperException, ValueError, OSError) as error:
        said = error.format_message() if isinstance(error, TyperException) else str(error)
        name = next((f" {word}" for word in given if word and not word.startswith("-")), "")
        print(plain(f"imagebart{name}: {' '.join(said.split())}"), file=sys.stderr)
        return BAD_INPUT
    if code == STOPPED:
        print("stopped", file=sys.stderr)
    return int(code)


class Subject(str, Enum):
    """What `bench` times."""

    shipped = "shipped"
    published = "published"


@command(app)
def bench(
    model: Model = DEFAULT_MODEL,
    only: Annotated[Subject | None, typer.Option(help="One of the two models alone.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Masks of 100 and 25 %, one variant.")] = False,
    plot: Annotated[Path | None, typer.Option(help="PNG to write: time against masked tokens.")] = None,
) -> None:
    """Time decoding on this machine."""
    from imagebart.bench.command import run

    run(model, only.value if only else None, quick, plot)


@command(app, "bench-published")
def bench_published(
    name: Annotated[str, typer.Argument(help="As `list` has it.")],
    figures: Annotated[Path, typer.Option(help="JSON that the figures are added to.")],
    stand_in: Annotated[
        Path | None, typer.Option(help="Folder for random weights of its shapes, made and used where it is not here.")
    ] = None,
) -> None:
    """Time a published model from end to end, and tell its memory."""
    from imagebart.bench.command import published

    published(name, figures, stand_in)
