"""Memory that runs have freed goes back to the system.

glibc keeps what was freed in the heap of each thread, and Gradio's requests run in many: after a busy minute tens of
megabytes would stay.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from gradio.utils import get_upload_folder
from PIL import Image

from imagebart.errors import InputError


def give_back() -> None:
    """Hands freed memory back; nothing happens where the C library is none that can be asked."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


# The folder for temporary files: the page's own, tidied while it runs, whatever became of the runs and uploads.
#
# Gradio deletes the files that it knows of; an upload that broke off, or files of a server that was killed, it does
# not.


NAME = "imagebart"
EVERY = 60  # seconds between two tidyings
# Seconds after which a file is deleted, by how its name begins. The browser asks for a preview at once; "tmp" is an
# upload on its way, which gets another name when it has arrived.
AGES = {"preview-": 180.0, "tmp": 900.0}
AGE = 3600.0  # of all others
KEPT = "kept-"  # how the names of files begin that stay: the examples, the same ones each time


def temporary_folder() -> str:
    """A folder that no other program uses and only this user reads: in GRADIO_TEMP_DIR where that is set."""
    user = os.getuid() if hasattr(os, "getuid") else "files"
    folder = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir()) / f"{NAME}-{user}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return str(folder.resolve())


def tidy(folder: Path, now: float | None = None) -> int:
    """Delete the files of `folder` that are too old at the time `now`, and folders left empty; how many files."""
    now = time.time() if now is None else now
    deleted = 0
    # From the leaves to the root, so that emptied folders are seen after their files.
    for parent, folders, names in os.walk(folder, topdown=False):
        for name in names:
            # An upload, whose name is anybody's, lies in a folder of its own.
            if not (name.startswith(KEPT) and Path(parent) == folder):
                deleted += _delete_if_old(Path(parent, name), now)
        for name in folders:
            _delete_if_empty(Path(parent, name), now)
    return deleted


def tidied(folder: Path, every: float = EVERY) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """A server's lifespan in which `folder` is tidied and memory given back: at once, then every so many seconds."""

    async def go_on() -> None:
        while True:
            await asyncio.to_thread(tidy, folder)
            await asyncio.to_thread(give_back)
            await asyncio.sleep(every)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(go_on())
        try:
            yield
        finally:
            task.cancel()

    return lifespan


def _delete_if_old(path: Path, now: float) -> bool:
    age = next((age for start, age in AGES.items() if path.name.startswith(start)), AGE)
    try:
        # Not the time of the last change to its content, which a copy takes over from the original.
        if now - path.lstat().st_ctime <= age:
            return False
        path.unlink()
    except OSError:  # another server was faster
        return False
    return True


def _delete_if_empty(path: Path, now: float) -> None:
    try:
        # A new one is about to be filled.
        if now - path.lstat().st_mtime > AGES["tmp"]:
            path.rmdir()
    except OSError:  # not empty
        return


# Pictures on their way to the browser.
#
# Gradio names a picture's file by its content and writes it anew each time: when two things on the page, or two
# people, are shown the same picture, one may be sent a file that is just being rewritten. Here each file is written
# once.


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
