"""`imagebart list`, `download`, `convert` and `push`: models on their way to and from this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from imagebart.cli.options import command

app = typer.Typer()

SHORT = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


@command(app, "list")
def list_models() -> None:
    """The published models, their sizes, which are here."""
    from imagebart.published.registry import model_table

    rows = list(model_table())
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@command(app)
def download(
    name: Annotated[str, typer.Argument(help="As `list` has it.")],
    sources: Annotated[
        list[str] | None,
        typer.Option("--from", help="Address, zip or folder in place of the authors'; tried in order."),
    ] = None,
) -> None:
    """Fetch a published model."""
    from imagebart.published.download import ProgressBar
    from imagebart.published.download import download as fetch_model

    with ProgressBar() as progress:
        print(fetch_model(name, sources or (), progress))


@command(app)
def convert(
    source: Annotated[str, typer.Argument(help="A name as `list` has it, or a folder with scale1.ckpt and so on.")],
    out: Annotated[
        Path | None, typer.Option(help="The new folder; of a name, where names are looked for if not given.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of the stored numbers: float32, bf16 or float16.")] = "float32",
    replace: Annotated[
        bool, typer.Option("--replace", help="Delete each published file once it is converted.")
    ] = False,
) -> None:
    """Make safetensors of a published model's files."""
    from imagebart.published.convert import Conversion
    from imagebart.published.convert import convert as convert_files
    from imagebart.published.registry import converted_folder, get_model, model_folder

    if out is None and Path(source).is_dir():
        raise ValueError(f"{source} is a folder: say with --out where the new one is to be")
    folder = Path(source) if Path(source).is_dir() else model_folder(get_model(source).name)
    out = out or converted_folder(source)
    job = Conversion(folder, out, SHORT.get(dtype, dtype), replace)
    convert_files(job, lambda sentence: print(sentence, file=sys.stderr))
    print(out)


@command(app)
def push(
    folder: Annotated[Path, typer.Argument(help="A model's folder: config.json, safetensors, README.md and so on.")],
    name: Annotated[str, typer.Argument(help="owner/name on the Hub.")],
    revision: Annotated[str | None, typer.Option(help="The branch; main if not given.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Of a new one: for you alone.")] = False,
) -> None:
    """Send a model's folder to the Hugging Face Hub, with a card."""
    from imagebart.published.hub import push_folder

    print(push_folder(folder, name, revision, private))
