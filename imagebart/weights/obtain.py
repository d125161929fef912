"""A published model by its name alone: downloaded and converted, unless it is here."""

from __future__ import annotations

from pathlib import Path

from imagebart.weights.convert import Conversion, convert
from imagebart.weights.download import download
from imagebart.weights.fetch import Bar
from imagebart.weights.overview import sizes
from imagebart.weights.places import converted_folder, find, model_of
from imagebart.weights.progress import ProgressBar
from imagebart.writing import readable


def obtain(name: str, dtype: str = "float32", bar: Bar | None = None) -> Path:
    """The folder of a published model, ready to load; says first how large it is, where it has to be fetched.

    dtype: of the stored numbers. bar: is told how it goes; None: a bar on standard error. Raises as `download` and
    `convert` do.
    """
    model = model_of(name)
    if find(name).is_dir():
        return find(name)
    if bar is None:
        with ProgressBar() as bar:
            return obtain(name, dtype, bar)
    size = sizes(model)
    fetched, kept = readable(size.download), readable(size.numbers * 4)
    bar.say(f"{name} is not here: about {fetched} to download, {kept} in the end.")
    folder = download(name, (), bar)
    out = converted_folder(name)
    convert(Conversion(folder, out, dtype, replace=True), bar.say)
    return out
