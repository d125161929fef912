"""Runs a command of the command line."""

import sys
from collections.abc import Sequence

import typer
from typer.exceptions import TyperException

from imagebart.cli import demo, draw, evaluate, models, train
from imagebart.core.errors import LONGEST_SENTENCE, format_value, plain, shortened

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Images edited and generated from masks and prompts. `imagebart demo` serves the page.",
)
app.add_typer(demo.app)
app.add_typer(draw.app)
app.add_typer(models.app)
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(train.app, name="train")

BAD_INPUT, STOPPED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code: 2 with one sentence on standard error for bad input."""
    return run(app, "imagebart", arguments)


def run(commands: typer.Typer, name: str, arguments: Sequence[str] | None = None) -> int:
    """The same for any commands; name: of the program, as its sentences begin."""
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = commands(given, prog_name=name, standalone_mode=False) or 0
    except (TyperException, ValueError, OSError) as error:
        said = error.format_message() if isinstance(error, TyperException) else str(error)
        if isinstance(error, OSError) and error.filename is not None and error.strerror:
            said = f"{format_value(str(error.filename))}: {error.strerror}"
        job = next((f" {word}" for word in given if word and not word.startswith("-")), "")
        said = shortened(" ".join(said.split()), LONGEST_SENTENCE)
        print(plain(f"{name}{shortened(job, 40)}: {said}"), file=sys.stderr)
        return BAD_INPUT
    if code == STOPPED:
        print("stopped", file=sys.stderr)
    return int(code)
