"""The sketchpad as a part of the page: its markup and scripts, and what it sends with every event.

The browser holds the one mask. Nothing is ever sent back into the sketchpad's value, so that no answer can overwrite
what was painted: answers come through `add_channel`. It is no class of its own: for one derived from `gr.HTML`, Gradio
writes a file of stubs beside the source.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import uuid4

import gradio as gr
from PIL import Image

from imagebart.errors import InputError
from imagebart.imaging.files import MAX_PIXELS, load_image
from imagebart.ui import messages as wording
from imagebart.ui.examples import scale_mask, view_size
from imagebart.ui.sketchpad.stored_images import find, unpack

# In the order of their imports.
SCRIPTS = ("mask", "state", "gradio", "images", "view", "run", "input", "sketchpad")
IMPORT = re.compile(r"^import \{([^}]*)\} from \"\./([\w-]+)\.js\";$", re.MULTILINE)
EXPORT = re.compile(r"^export (?:const|class) (\w+)", re.MULTILINE)
LARGEST = 2**53  # whole number that a browser counts to
LONGEST_NAME = 64  # letters of a run's name; the browser gives half as many
EMPTY: dict[str, Any] = {"version": 0, "picture": None, "size": [0, 0], "mask": ""}


@dataclass(frozen=True)
class Sketch:
    """What is on the sketchpad when a button is pressed."""

    version: int  # of the picture and mask; what answers it says it again
    path: str | None  # the picture's file; None: there is no picture
    size: tuple[int, int]  # the picture's width and height
    painted: str  # the mask, packed, in the sketchpad's pixels; "": nothing is painted
    of: str | None = None  # the words whose place the mask is; None: somebody painted it

    @classmethod
    def read(cls, value: Mapping[str, Any] | None) -> Sketch:
        """What the browser sent. Raises InputError for what no sketchpad sends."""
        try:
            value = value or EMPTY
            version, path, painted = int(value["version"]), value["picture"], str(value["mask"])
            of = None if value.get("of") is None else str(value["of"])
            width, height = (int(side) for side in value["size"])
            if abs(version) > LARGEST or min(width, height) < 0 or width * height > MAX_PIXELS:
                raise ValueError("a version that no browser counts to, or a size that no picture has")
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise InputError("What the sketchpad sent cannot be read; load the page again.") from error
        return cls(version, None if path is None else str(path), (width, height), painted, of)

    def file(self) -> Path:
        """The picture's file. Raises InputError if there is no picture, or `shelf.Gone` if it is no longer kept."""
        if self.path is None:
            raise InputError(wording.NO_PICTURE)
        return find(self.path)

    def picture(self) -> Image.Image:
        """The picture. Raises InputError as `file` does, and where it cannot be opened."""
        return load_image(self.file())

    def mask(self) -> Image.Image:
        """The mask, of the picture's size. Raises InputError if nothing is painted."""
        if not self.painted or 0 in self.size:
            raise InputError(wording.NO_MASK)
        return scale_mask(unpack(self.painted, view_size(self.size)), self.size)


def run_name(value: Any) -> str:
    """The name that the browser gave to a run, sent with the sketchpad's value; a new one where it gave none."""
    name = value.get("run") if isinstance(value, Mapping) else None
    return name if isinstance(name, str) and 0 < len(name) <= LONGEST_NAME else uuid4().hex


def add_sketchpad(examples: Sequence[Mapping[str, Any]], functions: Sequence[Callable[..., Any]]) -> gr.HTML:
    """Add the sketchpad to the page being built. `functions` are those of the server that it may call by name."""
    start = "new sketchpad.Sketchpad(element.firstElementChild, props, trigger, server, upload);"
    return gr.HTML(
        EMPTY,
        html_template=_read("template.html"),
        js_on_load=f'"use strict";\n{scripts()}\n{start}',
        apply_default_css=False,
        server_functions=list(functions),
        elem_id="sketchpad",
        examples=list(examples),
    )


def add_channel(name: str) -> gr.HTML:
    """A hidden part whose value, any JSON, is sent to the page's scripts as the message `name`: see channel.js."""
    send = f"imagebart.send('{name}', props.value)"
    return gr.HTML(
        html_template="<span></span>",
        js_on_load=f"watch('value', () => props.value && {send});",
        elem_classes="sp-channel",
        elem_id=f"channel-{name}",
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
