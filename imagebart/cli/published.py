"""`python -m imagebart list`, `download` and `convert`: the published models on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add_commands(commands: Any) -> None:
    """Adds the three commands to the command line's subparsers."""
    listing = commands.add_parser("list", help="the published models, their sizes, which are here")
    listing.set_defaults(handler=lambda options: print(listed()))

    download = commands.add_parser("download", help="fetch a published model")
    download.add_argument("name", help="as `list` has it")
    download.add_argument(
        "--from", dest="sources", action="append", default=[], metavar="URL|FOLDER",
        help="where from instead of the original address; given several times, the first that has it",
    )  # fmt: skip
    download.set_defaults(handler=lambda options: download_model(options.name, options.sources))

    convert = commands.add_parser("convert", help="make safetensors of a published model's files")
    convert.add_argument("source", help="a name as `list` has it, or a folder with scale1.ckpt and so on")
    convert.add_argument("--out", type=Path, help="the new folder (default, for a name: where names are looked for)")
    convert.add_argument("--dtype", default="float32", help="of the stored numbers: float32 (default), bf16 or float16")
    convert.add_argument("--replace", action="store_true", help="delete each published file once it is converted")
    convert.set_defaults(handler=_convert)


def listed() -> str:
    """The table of published models."""
    from imagebart.weights.overview import overview

    rows = [("name", "draws", "stages", "download", "drawing", "a picture here", "")]
    for row in overview():
        rows.append((row.name, row.draws, str(row.stages), row.download, row.memory, row.picture, row.where))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def download_model(name: str, sources: list[str]) -> None:
    """Fetches a model; says on standard output where it is."""
    from imagebart.weights.download import download
    from imagebart.weights.progress import ProgressBar

    with ProgressBar() as bar:
        folder = download(name, sources, bar)
    print(folder)


def convert_model(source: str, out: Path | None, dtype: str, replace: bool) -> None:
    """Converts a published model or a folder; says on standard output where the new folder is."""
    from imagebart.weights.convert import Conversion, convert
    from imagebart.weights.places import converted_folder, find, model_of

    if out is None and Path(source).is_dir():
        raise ValueError(f"{source} is a folder: say with --out where the new one is to be")
    folder = Path(source) if Path(source).is_dir() else find(model_of(source).name)
    out = out or converted_folder(source)
    kind = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}.get(dtype, dtype)
    convert(Conversion(folder, out, kind, replace), lambda sentence: print(sentence, file=sys.stderr))
    print(out)


def _convert(options: argparse.Namespace) -> None:
    convert_model(options.source, options.out, options.dtype, options.replace)
