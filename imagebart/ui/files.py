"""Pictures on their way to the browser.

Gradio names a picture's file by its content and writes it anew each time: when two things on the page, or two
people, are shown the same picture, one may be sent a file that is just being rewritten. Here each file is written
once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from gradio.utils import get_upload_folder
from PIL import Image

from imagebart.errors import InputError
from imagebart.ui.temporary import KEPT

# The previews of a run are sent at once and soon forgotten: quick to write matters more than small.
COMPRESSION = 1
NO_ROOM = (
    "The server's disk has no room for pictures just now. Your picture, mask and words are still here: "
    "please try again in a few minutes."
)


class NoRoom(InputError):
    """The disk for temporary files is full. Shown to people like what is wrong with their input."""


def publish(image: Image.Image) -> str:
    """Write a picture, losslessly, where the page may show it. It is deleted when it is old.

    Raises NoRoom where it cannot be written; nothing is left behind then.
    """
    return written("picture.png", lambda path: image.save(path, compress_level=COMPRESSION))


def kept(name: str, image: Image.Image) -> str:
    """A picture that every server shows under the same name: written once, whoever comes first, and never deleted."""
    path = Path(get_upload_folder()) / f"{KEPT}{name}"
    if not path.is_file():
        whole = written("picture.png", lambda path: image.save(path))
        os.replace(whole, path)
    return str(path)


def publish_preview(image: Image.Image) -> str:
    """The same for a picture that is shown for a moment only: it is deleted soon (see `temporary.AGES`)."""
    return written("picture.png", lambda path: image.save(path, compress_level=COMPRESSION), "preview")


def as_preview(path: str) -> str:
    """Another name of a file, soon deleted like a preview: the browser may still ask for it when the file is dropped.

    Raises NoRoom as `publish` does.
    """

    def link(preview: Path) -> None:
        try:
            os.link(path, preview)
        except OSError:  # some file systems know one name a file
            shutil.copyfile(path, preview)

    return written("picture.png", link, "preview")


def written(name: str, write: Callable[[Path], None], kind: str = "imagebart") -> str:
    """Have a file written where the page may show it; its name ends in `name`. It is deleted when it is old.

    Raises NoRoom where it cannot be written; nothing is left behind then.
    """
    folder = Path(get_upload_folder())
    path = folder / f"{kind}-{uuid4().hex[:12]}-{name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(path)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise NoRoom(NO_ROOM) from error
    return str(path)
