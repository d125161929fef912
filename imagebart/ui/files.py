"""What browser and server hand each other: images as files, masks as text, and what is on the sketchpad.

The browser knows an image by its path in the page's folder. Each is written once, under a name that nobody can guess,
and deleted when it is old. No session holds them, so that they outlive a session and a restart of the server. The
browser holds the one mask. What it may ask for by name is at the end.
"""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import numpy as np
from gradio.utils import get_upload_folder
from PIL import Image
from pydantic import BaseModel, ValidationError
from typing_extensions import Self

from imagebart.core.errors import InputError
from imagebart.imaging.files import MAX_PIXELS, load_image, read_recipe, save_animation
from imagebart.imaging.masks import cover, load_mask, spans
from imagebart.ui import messages

SketchValue = Mapping[str, Any] | None  # what the browser sends with every event; None: nothing yet

MAX_FILE = 40_000_000  # bytes of an upload; larger ones are refused while they are still arriving
MAX_VIEW_SIDE = 1024  # pixels of the longer side of what is painted on; the same in mask.js
MAX_PREVIEW_SIDE = 512  # of a preview, which is compressed and sent while the model waits
MAX_SHAPE = 3  # the longer side of an expanded image, over the shorter one
ANIMATION_SECONDS = 4.0
MAX_FRAMES = 200

TIDY_INTERVAL = 60.0  # seconds
# Seconds after which a file is deleted, by how its name begins. The browser asks for a preview at once; "tmp" is an
# upload on its way, which gets another name when it has arrived.
MAX_AGES = {"preview-": 180.0, "tmp": 900.0}
MAX_AGE = 3600.0  # of all others
PERMANENT = "kept-"  # how the names of files begin that stay: the examples, the same ones each time


class ImageDeleted(InputError):
    """An image's file is no longer there."""


def publish_file(name: str, write: Callable[[Path], object], prefix: str = "imagebart") -> str:
    """Has a file written where the page may show it: its path, which begins with `prefix` and ends in `name`.

    Raises InputError where the disk is full; nothing is left behind then.
    """
    folder = Path(get_upload_folder())
    path = folder / f"{prefix}-{uuid4().hex[:12]}-{name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(path)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise InputError(messages.DISK_FULL) from error
    return str(path)


def publish(image: Image.Image, prefix: str = "imagebart") -> str:
    """Writes an image, losslessly, where the page may show it: its path. "preview": it is deleted soon."""
    # Most are sent at once and soon deleted: quick to write matters more than small.
    return publish_file("image.png", lambda path: image.save(path, compress_level=1), prefix)


def publish_permanently(name: str, image: Image.Image) -> str:
    """An image that every server shows under the same name: written by whoever comes first, and never deleted."""
    path = Path(get_upload_folder()) / f"{PERMANENT}{name}"
    if not path.is_file():
        os.replace(publish_file("image.png", image.save), path)
    return str(path)


def tidy(folder: Path, now: float, times: Mapping[str, float] = MappingProxyType({})) -> dict[str, float]:
    """Deletes the files of `folder` that are too old at the time `now`, and empty folders.

    times: since when files are there, as the last call returned it: they may be tens of thousands, and on a busy server
    each question to the system takes its turn.
    """
    left = {}
    # From the leaves to the root, so that emptied folders are seen after their files.
    for parent, folders, names in os.walk(folder, topdown=False):
        for name, delete in (*((name, os.unlink) for name in names), *((name, os.rmdir) for name in folders)):
            # An upload, whose name anybody can choose, lies in a folder of its own.
            if name.startswith(PERMANENT) and parent == str(folder):
                continue
            path = os.path.join(parent, name)
            age = next((age for prefix, age in MAX_AGES.items() if name.startswith(prefix)), MAX_AGE)
            try:
                # Not the time of the last change to its content, which a copy takes over from the original.
                since = times.get(path) or os.lstat(path).st_ctime
                if now - since > age:
                    delete(path)
                elif delete is os.unlink:
                    left[path] = since
            except OSError:  # not empty, or another server was faster
                continue
    return left


def tidy_forever(folder: Path) -> None:
    """Tidies a folder every minute. Gradio would only delete the files that it wrote itself."""
    times: dict[str, float] = {}
    while True:
        times = tidy(folder, time.time(), times)
        time.sleep(TIDY_INTERVAL)


def find(path: str) -> Path:
    """A file in the page's folder, by its path or its path in there. Raises ImageDeleted for all else."""
    folder = Path(get_upload_folder()).resolve()
    try:
        file = (folder / path).resolve()
        if file.is_relative_to(folder) and file.is_file():
            return file
    except (OSError, ValueError):  # a name that no file can have
        pass
    raise ImageDeleted(messages.IMAGE_DELETED)


def view_size(size: tuple[int, int], longest: int = MAX_VIEW_SIDE) -> tuple[int, int]:
    """Size of what is painted on, for an image of `size` (width, height): its own, or a bounded share of it.

    So no button moves megabytes, and small images are painted on pixel by pixel.
    """
    scale = min(max(size), longest) / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def downscaled(image: Image.Image, longest: int = MAX_VIEW_SIDE) -> Image.Image:
    """The image itself, or a copy whose longer side is `longest` where it is larger."""
    size = view_size(image.size, longest)
    return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2)


def describe(path: str, image: Image.Image, view: str | None = None) -> dict[str, Any]:
    """An image as the sketchpad knows it: its file, its size, and a copy that any browser can show."""
    size, mask_size = ({"width": sides[0], "height": sides[1]} for sides in (image.size, view_size(image.size)))
    return {"path": path, **size, "view": view or publish(downscaled(image)), "mask_size": mask_size}


def describe_png(path: str, image: Image.Image) -> dict[str, Any]:
    """The same for a PNG that this page wrote: small ones are shown as they are."""
    return describe(path, image, path if max(image.size) <= MAX_VIEW_SIDE else None)


def pack_mask(mask: Image.Image) -> str:
    """An "L" mask as the sketchpad sends and takes it: values and how often each follows itself, by rows from the top.

    "0 300 255 12 …"; "" where nothing is painted. Both sides read it at once: an image the browser would decode later,
    when something else may have been painted.
    """
    pixels = np.asarray(mask).ravel()
    if not pixels.any():
        return ""
    starts = np.flatnonzero(np.diff(pixels, prepend=int(pixels[0]) ^ 1))
    lengths = np.diff(starts, append=pixels.size)
    return " ".join(map(str, np.column_stack([pixels[starts], lengths]).ravel().tolist()))


def unpack_mask(text: str, size: tuple[int, int]) -> Image.Image:
    """The "L" mask of `size` (width, height) that was packed. Raises InputError for anything else."""
    count = size[0] * size[1]
    try:
        values, lengths = np.array(text.split() or ["0", str(count)], np.int64).reshape(-1, 2).T
    except (ValueError, OverflowError) as error:
        raise InputError(messages.MASK_UNREADABLE) from error
    fits = 1 <= lengths.min() <= lengths.max() <= count == lengths.sum()
    if not fits or not 0 <= values.min() <= values.max() <= 255:
        raise InputError(messages.MASK_UNREADABLE)
    return Image.fromarray(np.repeat(values.astype(np.uint8), lengths).reshape(size[1], size[0]))


def pack_for_view(mask: Image.Image) -> str:
    """A mask of an image's size as the sketchpad takes it, see `pack_mask`."""
    return pack_mask(scale_mask(mask, view_size(mask.size)))


def scale_mask(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A mask scaled to `size` (width, height) without losing the thinnest stroke."""
    if mask.size == size:
        return mask
    if size[0] > mask.width or size[1] > mask.height:
        return mask.resize(size, Image.Resampling.NEAREST)
    rows, columns = spans(0, mask.height, size[1]), spans(0, mask.width, size[0])
    return Image.fromarray(cover(np.asarray(mask), rows, columns))


class Sketch(BaseModel, frozen=True):
    """What is on the sketchpad when a button is pressed."""

    version: int = 0  # of the image and mask; answers repeat it
    image: str | None = None  # its file
    view: str = ""  # a small copy of it
    mask: str = ""  # packed, in the sketchpad's pixels; "": nothing is painted
    movable: bool = False  # nobody painted the mask: an example's, a ready one, one that words found
    mode: str = "fill"  # what Edit does, see modes.js

    @classmethod
    def read(cls, value: SketchValue) -> Self:
        """What the browser sent. Raises InputError for what no sketchpad sends."""
        try:
            return cls.model_validate(value or {})
        except ValidationError as error:
            raise InputError(messages.SKETCH_UNREADABLE) from error

    def file(self) -> Path:
        """The image's file. Raises InputError if there is no image, and ImageDeleted if it is no longer there."""
        if self.image is None:
            raise InputError(messages.NO_IMAGE)
        return find(self.image)

    def painted(self, size: tuple[int, int]) -> Image.Image | None:
        """The mask, of the image's `size`; None where nothing is painted. Raises InputError for what is no mask."""
        return scale_mask(unpack_mask(self.mask, view_size(size)), size) if self.mask else None


# What the browser may call by name, see `answering` in actions.py: JSON in, JSON out.


def open_image(path: str) -> dict[str, Any]:
    """An upload, or an image from before: {"image": …, "made": whether this page made it}."""
    file = find(path)
    described = describe(str(file), load_image(file))
    try:
        made = read_recipe(file) is not None
    except InputError:  # reported when its settings are asked for
        made = True
    return {"image": described, "made": made}


def link_token(path: str) -> dict[str, Any]:
    """An image's name in a link, with which it can be opened as long as it is there: {"token": …}."""
    return {"token": find(path).relative_to(Path(get_upload_folder()).resolve()).as_posix()}


def compose(step: Mapping[str, Any]) -> dict[str, Any]:
    """A step of a run as a whole image: {"part": a file, "box": its place or null, "base": the whole or null}."""
    whole = _open_png(step["part"])
    if step.get("base") and step.get("box"):
        part, whole = whole, load_image(find(step["base"]))
        left, top = step["box"][:2]
        whole.paste(part, (left, top))
    return {"image": describe_png(publish(whole), whole)}


def expand(request: Mapping[str, Any]) -> dict[str, Any]:
    """An image with more around it: {"path": a file, "left", "top", "right", "bottom": pixels} to {"image": …}."""
    image = load_image(find(request["path"]))
    left, top, right, bottom = (request[side] for side in ("left", "top", "right", "bottom"))
    width, height = image.width + left + right, image.height + top + bottom
    if max(width, height) > MAX_SHAPE * min(width, height) or width * height > MAX_PIXELS:
        raise InputError(messages.expanded_too_far((width, height), MAX_SHAPE, MAX_PIXELS))
    grown = Image.fromarray(np.pad(np.asarray(image), ((top, bottom), (left, right), (0, 0)), mode="edge"))
    return {"image": describe_png(publish(grown), grown)}


def animate(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run as an animation: {"shown": its steps' files} to {"path": …}."""
    frames = [_open_png(path).convert("RGB") for path in run["shown"][:MAX_FRAMES]]
    return {"path": publish_file("run.webp", lambda path: save_animation(frames, path, ANIMATION_SECONDS))}


def open_mask(request: Mapping[str, Any]) -> dict[str, Any]:
    """An uploaded mask for an image: {"path": a file, "size": that of what is painted on} to {"mask": …}."""
    width, height = (request["size"][side] for side in ("width", "height"))
    if not 1 <= min(width, height) <= max(width, height) <= MAX_VIEW_SIDE:
        raise InputError(messages.MASK_UNREADABLE)
    return {"mask": pack_mask(load_mask(find(request["path"]), (width, height)))}


def _open_png(path: str) -> Image.Image:
    """An image that a run wrote, however small."""
    with Image.open(find(path), formats=["PNG"]) as image:
        image.load()
        return image
