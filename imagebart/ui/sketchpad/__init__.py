"""The sketchpad as a part of the page: its markup and scripts, what it sends with every event, and masks as text.

The browser holds the one mask. Nothing is ever sent back into the sketchpad's value, so that no answer can overwrite
what was painted: answers come through `add_channel`. It is no class of its own: for one derived from `gr.HTML`, Gradio
writes a file of stubs beside the source.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image
from pydantic import BaseModel, ValidationError

from imagebart.core.errors import InputError
from imagebart.imaging.files import load_image
from imagebart.imaging.masks import cover, load_mask, spans
from imagebart.ui import messages
from imagebart.ui.files import MAX_FILE, MAX_VIEW_SIDE, find, view_size

# In the order of their imports.
SCRIPTS = (
    "mask",
    "state",
    "gradio",
    "prompt",
    "images",
    "view",
    "review",
    "run",
    "modes",
    "questions",
    "input",
    "sketchpad",
)
IMPORT = re.compile(r"^import \{([^}]*)\} from \"\./([\w-]+)\.js\";$", re.MULTILINE)
EXPORT = re.compile(r"^export (?:const|class) (\w+)", re.MULTILINE)
SketchValue = Mapping[str, Any] | None  # what the browser sends with every event; None: nothing yet


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
        if not 0 <= values.min() <= values.max() <= 255 or not 1 <= lengths.min() <= lengths.max() <= count:
            raise ValueError("values that no mask has")
        if lengths.sum() != count:
            raise ValueError(f"not a mask of {size[0]} x {size[1]} pixels")
    except (ValueError, OverflowError) as error:
        raise InputError(messages.MASK_UNREADABLE) from error
    return Image.fromarray(np.repeat(values.astype(np.uint8), lengths).reshape(size[1], size[0]))


def pack_for_view(mask: Image.Image) -> str:
    """A mask of an image's size as the sketchpad takes it, see `pack_mask`."""
    return pack_mask(scale_mask(mask, view_size(mask.size)))


def open_mask(request: Mapping[str, Any]) -> dict[str, Any]:
    """An uploaded mask for an image: {"path": a file, "size": that of what is painted on} to {"mask": …}."""
    width, height = (request["size"][side] for side in ("width", "height"))
    if not 1 <= min(width, height) <= max(width, height) <= MAX_VIEW_SIDE:
        raise InputError(messages.MASK_UNREADABLE)
    return {"mask": pack_mask(load_mask(find(request["path"]), (width, height)))}


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
    def read(cls, value: SketchValue) -> Sketch:
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

    def open(self) -> Image.Image:
        """The image. Raises InputError as `file` and `load_image` do."""
        return load_image(self.file())

    def painted(self, size: tuple[int, int]) -> Image.Image | None:
        """The mask, of the image's `size`; None where nothing is painted. Raises InputError for what is no mask."""
        return scale_mask(unpack_mask(self.mask, view_size(size)), size) if self.mask else None


def add_sketchpad(
    examples: Sequence[Mapping[str, Any]], controls: Mapping[str, Any], functions: Sequence[Callable[..., Any]]
) -> gr.HTML:
    """Adds the sketchpad to the page being built.

    controls: the first values of what it sends with its questions. functions: those of the server that it may call by
    name.
    """
    start = "new sketchpad.Sketchpad(element.firstElementChild, props, server, upload);"
    return gr.HTML(
        {},
        html_template=_read("template.html"),
        js_on_load=f'"use strict";\n{scripts()}\n{start}',
        apply_default_css=False,
        server_functions=list(functions),
        elem_id="sketchpad",
        examples=list(examples),
        controls=controls,
        max_file=MAX_FILE,
    )


def add_channel(name: str) -> gr.HTML:
    """A hidden part whose value, any JSON, is sent to the page's scripts as the message `name`: see channel.js.

    Each message has a part of its own: a part holds its last value only, and two messages may come at the same moment.
    """
    return _add_hidden(name, f"watch('value', () => props.value && imagebart.send('{name}', props.value));")


def add_receiver(name: str) -> gr.HTML:
    """A hidden part whose value is what the page's scripts last sent as the message `name`; its event is `input`."""
    return _add_hidden(name, f"imagebart.on('{name}', (value) => {{ props.value = value; trigger('input'); }});")


def _add_hidden(name: str, script: str) -> gr.HTML:
    return gr.HTML(
        html_template="<span></span>", js_on_load=script, elem_classes="sp-channel", elem_id=f"channel-{name}"
    )


def scripts() -> str:
    """The modules as one script, each in a scope of its own, so that the page asks for no further file."""
    return "\n".join(_scoped(name) for name in SCRIPTS)


def _scoped(name: str) -> str:
    source = IMPORT.sub(r"const {\1} = \2;", _read(f"{name}.js"))
    given = ", ".join(EXPORT.findall(source))
    body = EXPORT.sub(lambda found: found.group().removeprefix("export "), source)
    return f"const {name} = (() => {{\n{body}\nreturn {{ {given} }};\n}})();"


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
