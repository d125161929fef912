"""The images that the sketchpad shows: files in the page's folder, which the browser knows by their paths.

No session holds them, so that they outlive a session and a restart of the server. What the browser may ask for by name
is at the end: JSON in, JSON out, and {"error": a sentence} where something is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ContextDecorator
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

import numpy as np
from gradio.utils import get_upload_folder
from PIL import Image

from imagebart.errors import InputError
from imagebart.imaging.files import BAND, MAX_PIXELS, flatten, load_image, save_animation
from imagebart.imaging.metadata import read_recipe
from imagebart.imaging.structure import open_checked
from imagebart.ui import messages
from imagebart.ui.files import publish, publish_file

MAX_VIEW_SIDE = 1024  # pixels of the longer side of what is painted on; the same in mask.js
MAX_PREVIEW_SIDE = 512  # of a preview, which is compressed and sent while the model waits
ANIMATION_SECONDS = 4.0
MAX_FRAMES = 200
MAX_SHAPE = 3  # the longer side of an expanded image, over the shorter one
NAME_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789-"
UNREADABLE_ERRORS = (TypeError, KeyError, ValueError, OverflowError, OSError, Image.DecompressionBombError)


class Limit(ContextDecorator, BoundedSemaphore):
    """How many calls of the functions that it decorates run at a time, of what takes much memory and is not queued."""


IMAGE_LIMIT = Limit(2)  # images decoded: MAX_MEMORY each, at most
ANIMATION_LIMIT = Limit(1)  # 0.6 GB


class ImageDeleted(InputError):
    """An image's file is no longer there."""


def find(path: str) -> Path:
    """A file in the page's folder, by its path or its path in there. Raises ImageDeleted for all else."""
    folder = Path(get_upload_folder()).resolve()
    try:
        found = (folder / path).resolve()
        if found.is_relative_to(folder) and found.is_file():
            return found
    except (OSError, ValueError):  # a name that no file can have
        pass
    raise ImageDeleted(messages.IMAGE_DELETED)


def view_size(size: tuple[int, int]) -> tuple[int, int]:
    """Size of what is painted on, for an image of `size` (width, height): its own, or a bounded share of it.

    So no button moves megabytes, and small images are painted on pixel by pixel.
    """
    scale = min(max(size), MAX_VIEW_SIDE) / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def downscaled(image: Image.Image, longest: int = MAX_VIEW_SIDE) -> Image.Image:
    """The image itself, or a copy whose longer side is `longest` where it is larger."""
    scale = longest / max(image.size)
    if scale >= 1:
        return image
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    factor = int(1 / (2 * scale)) or 1
    # Some rows at a time: Pillow would first make a copy of all that is transparent.
    small = Image.new(image.mode, (-(-image.width // factor), -(-image.height // factor)))
    for top in range(0, small.height, BAND):
        rows = (0, top * factor, image.width, min((top + BAND) * factor, image.height))
        small.paste(image.crop(rows).reduce(factor), (0, top))
    return small.resize(size, Image.Resampling.BILINEAR, box=(0, 0, image.width / factor, image.height / factor))


def describe(path: str, image: Image.Image, view: str | None = None) -> dict[str, Any]:
    """An image as the sketchpad knows it: its file, its size, and a copy that any browser can show."""
    view = view or publish(flatten(downscaled(image)))
    return {"path": path, "width": image.width, "height": image.height, "view": view}


def describe_png(path: str, image: Image.Image) -> dict[str, Any]:
    """The same for a PNG that this page wrote: small ones are shown as they are."""
    return describe(path, image, path if max(image.size) <= MAX_VIEW_SIDE else None)


@IMAGE_LIMIT
def open_image(path: str) -> dict[str, Any]:
    """An upload, or an image from before: {"image": …, "made": whether this page made it}."""
    try:
        found = find(str(path))
        described = describe(str(found), load_image(found))
    except InputError as error:
        return {"error": str(error)}
    try:
        made = read_recipe(found) is not None
    except InputError:  # reported when its settings are asked for
        made = True
    return {"image": described, "made": made}


def link_token(path: str) -> dict[str, Any]:
    """An image's name in a link, with which it can be opened as long as it is there: {"token": …}."""
    try:
        return {"token": find(str(path)).relative_to(Path(get_upload_folder()).resolve()).as_posix()}
    except InputError as error:
        return {"error": str(error)}


@IMAGE_LIMIT
def compose(step: Mapping[str, Any]) -> dict[str, Any]:
    """A step of a run as a whole image: {"part": a file, "box": its place or null, "base": the whole or null}."""
    try:
        whole = _open_png(str(step["part"]))
        if step.get("base") and step.get("box"):
            part, whole = whole, load_image(find(str(step["base"])))
            left, top = (int(value) for value in step["box"][:2])
            whole.paste(part, (left, top))
        return {"image": describe_png(publish(whole), whole)}
    except InputError as error:
        return {"error": str(error)}
    except UNREADABLE_ERRORS:
        return {"error": messages.STEP_UNREADABLE}


@IMAGE_LIMIT
def expand(request: Mapping[str, Any]) -> dict[str, Any]:
    """An image with more around it: {"path": a file, "left", "top", "right", "bottom": pixels} to {"image": …}.

    What is new repeats the image's edge.
    """
    try:
        image = load_image(find(str(request["path"])))
        left, top, right, bottom = (int(request[side]) for side in ("left", "top", "right", "bottom"))
        width, height = image.width + left + right, image.height + top + bottom
        if min(left, top, right, bottom) < 0:
            raise ValueError("an image does not shrink")
        if max(width, height) > MAX_SHAPE * min(width, height) or width * height > MAX_PIXELS:
            return {"error": messages.expanded_too_far((width, height), MAX_SHAPE, MAX_PIXELS)}
        grown = Image.fromarray(np.pad(np.asarray(image), ((top, bottom), (left, right), (0, 0)), mode="edge"))
        return {"image": describe_png(publish(grown), grown)}
    except InputError as error:
        return {"error": str(error)}
    except UNREADABLE_ERRORS:
        return {"error": messages.STEP_UNREADABLE}


@ANIMATION_LIMIT
def animate(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run as an animation: {"shown": its steps' files, "suffix": ".webp" or ".gif", "name": …} to {"path": …}."""
    try:
        shown: Sequence[str] = run["shown"][:MAX_FRAMES]
        frames = [_open_png(str(path), MAX_VIEW_SIDE**2).convert("RGB") for path in shown]
        suffix = ".gif" if run["suffix"] == ".gif" else ".webp"
        name = "".join(letter for letter in str(run["name"])[:80] if letter in NAME_CHARACTERS)
        path = publish_file(f"{name}{suffix}", lambda path: save_animation(frames, path, ANIMATION_SECONDS))
        return {"path": path}
    except InputError as error:
        return {"error": str(error)}
    except UNREADABLE_ERRORS:
        return {"error": messages.STEP_UNREADABLE}


def _open_png(path: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An image that a run wrote, however small; of at most so many pixels."""
    with open_checked(find(path), ("PNG",)) as image:
        if image.width * image.height > max_pixels:
            raise InputError(messages.STEP_UNREADABLE)
        image.load()
        return image
