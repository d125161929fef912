"""Masks as text, as the sketchpad sends and takes them: values and how often each follows itself, "0 300 255 12 …".

Both sides read it at once: the browser decodes pictures only later, when something else may have been painted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, ParamSpec, TypeVar

import numpy as np
from gradio.utils import get_upload_folder
from PIL import Image

from imagebart.errors import InputError
from imagebart.imaging.files import MAX_PIXELS, flatten, load_image, save_animation
from imagebart.imaging.metadata import read_recipe
from imagebart.ui.examples import LARGEST_VIEW, Example, reduced, scale_mask, view_size
from imagebart.ui.files import kept, publish, written

LONGEST_RUN = len("255 1 ")  # of one pixel: longer ones take fewer letters a pixel


def pack(mask: Image.Image) -> str:
    """An "L" picture as text, by rows from the top; "" where nothing is painted."""
    pixels = np.asarray(mask).ravel()
    if not pixels.any():
        return ""
    starts = np.flatnonzero(np.diff(pixels, prepend=int(pixels[0]) ^ 1))
    runs = np.diff(starts, append=pixels.size)
    return " ".join(map(str, np.column_stack([pixels[starts], runs]).ravel().tolist()))


def unpack(text: str, size: tuple[int, int]) -> Image.Image:
    """The "L" picture of `size` (width, height) that was packed. Raises InputError for anything else."""
    count = size[0] * size[1]
    try:
        if len(text) > LONGEST_RUN * count:
            raise ValueError(f"longer than any mask of {size[0]} x {size[1]} pixels")
        values, runs = np.array(text.split() if text else [0, count], np.int64).reshape(-1, 2).T
        if values.min() < 0 or values.max() > 255 or runs.min() < 1 or runs.max() > count or runs.sum() != count:
            raise ValueError(f"not a mask of {size[0]} x {size[1]} pixels")
    except (ValueError, OverflowError) as error:
        raise InputError("The mask cannot be read, or belongs to another picture; load the page again.") from error
    return Image.fromarray(np.repeat(values.astype(np.uint8), runs).reshape(size[1], size[0]))


# How many do at a time what takes much memory, of what no queue holds back.


P = ParamSpec("P")
R = TypeVar("R")

PICTURES = BoundedSemaphore(2)  # pictures that are unpacked: 0.3 GB each, at most
FILMS = BoundedSemaphore(1)  # 0.6 GB


def in_turn(places: BoundedSemaphore) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """For a function that waits until one of the places is free."""

    def waiting(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def turn(*values: P.args, **named: P.kwargs) -> R:
            with places:
                return function(*values, **named)

        return turn

    return waiting


# The pictures that the sketchpad shows: files in the page's folder, known to the browser by their paths.
#
# No session holds them, so that they outlive a session, and a server that is started again.


GONE = "This picture is no longer kept: pictures are forgotten after an hour. The ones on the page can be saved."
UNREADABLE = "What the page sent cannot be read; load the page again."
ANIMATION_SECONDS = 4.0
MOST_FRAMES = 200
UNUSABLE = (TypeError, KeyError, ValueError, OverflowError, OSError, Image.DecompressionBombError)
NAMES = "abcdefghijklmnopqrstuvwxyz0123456789-"


class Gone(InputError):
    """A picture's file was deleted."""


def find(path: str) -> Path:
    """A file of the page's folder, by its path or its path in there. Raises Gone where there is none, or elsewhere."""
    folder = Path(get_upload_folder()).resolve()
    try:
        found = (folder / path).resolve()
        if found.is_relative_to(folder) and found.is_file():
            return found
    except (OSError, ValueError):  # a name that no file can have
        pass
    raise Gone(GONE)


def describe(path: str, image: Image.Image, view: str | None = None) -> dict[str, Any]:
    """A picture as the sketchpad knows it: its file, its size, and a copy that any browser can show."""
    return {"path": path, "width": image.width, "height": image.height, "view": view or _view(image)}


def describe_own(path: str, image: Image.Image) -> dict[str, Any]:
    """The same for a picture that this page wrote, as a PNG: small ones are shown as they are."""
    return describe(path, image, path if max(image.size) <= LARGEST_VIEW else None)


def describe_example(example: Example) -> dict[str, Any]:
    """An example with its words, its mask and a thumbnail. Its files have the same names each time."""
    name = f"{example.path.stem}-{hashlib.sha256(example.path.read_bytes()).hexdigest()[:12]}.png"
    image = example.open()
    path = kept(name, image)
    mask = example.mask()
    return {
        "picture": describe(path, image, kept(f"view-{name}", reduced(image))),
        "caption": example.caption,
        "prompt": example.prompt,
        "mask": "" if mask is None else pack(scale_mask(mask, view_size(mask.size))),
        "small": kept(f"small-{name}", reduced(example.thumbnail(), 128)),
    }


# What the browser may ask for by name: JSON in, JSON out, and {"error": a sentence} where something is wrong.


@in_turn(PICTURES)
def take(path: str) -> dict[str, Any]:
    """An upload, or a picture from before: {"picture": …, "made": whether this page made it}."""
    try:
        found = find(str(path))
        picture = describe(str(found), load_image(found))
    except InputError as error:
        return {"error": str(error)}
    try:
        made = read_recipe(found) is not None
    except InputError:  # it is said when its settings are asked for
        made = True
    return {"picture": picture, "made": made}


def lend(path: str) -> dict[str, Any]:
    """A picture's name for a link, with which it can be taken as long as it is kept: {"token": …}."""
    try:
        return {"token": find(str(path)).relative_to(Path(get_upload_folder()).resolve()).as_posix()}
    except InputError as error:
        return {"error": str(error)}


@in_turn(PICTURES)
def compose(step: Mapping[str, Any]) -> dict[str, Any]:
    """A step of a run as a whole picture: {"part": a file, "box": its place or null, "base": the whole or null}."""
    try:
        whole = _open(str(step["part"]))
        if step.get("base") and step.get("box"):
            part, whole = whole, load_image(find(str(step["base"])))
            left, top = (int(value) for value in step["box"][:2])
            whole.paste(part, (left, top))
        return {"picture": describe_own(publish(whole), whole)}
    except InputError as error:
        return {"error": str(error)}
    except UNUSABLE:
        return {"error": UNREADABLE}


@in_turn(FILMS)
def film(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run as a moving picture: {"shown": its steps' files, "suffix": ".webp" or ".gif", "name": …} to {"path": …}."""
    try:
        shown: Sequence[str] = run["shown"][:MOST_FRAMES]
        frames = [_open(str(path), LARGEST_VIEW**2).convert("RGB") for path in shown]
        suffix = ".gif" if run["suffix"] == ".gif" else ".webp"
        name = "".join(letter for letter in str(run["name"])[:80] if letter in NAMES)
        return {"path": written(f"{name}{suffix}", lambda path: save_animation(frames, path, ANIMATION_SECONDS))}
    except InputError as error:
        return {"error": str(error)}
    except UNUSABLE:
        return {"error": UNREADABLE}


def _view(image: Image.Image) -> str:
    return publish(flatten(reduced(image)))


def _open(path: str, most: int = MAX_PIXELS) -> Image.Image:
    """A picture that a run wrote, however small; of at most so many pixels."""
    with Image.open(find(path), formats=("PNG",)) as image:
        if image.width * image.height > most:
            raise InputError(UNREADABLE)
        image.load()
        return image
