"""Files that the page shows: written once under names that nobody can guess, deleted when they are old.

Gradio deletes the files that it knows of. An upload that broke off, or files of a server that was killed, it does not:
so the page has a folder of its own, which is tidied while the server runs. Gradio also names an image's file by its
content and writes it anew each time, so that one visitor may be sent a file that is just being rewritten; here each
file is written once.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from gradio.utils import get_upload_folder
from PIL import Image

from imagebart.errors import InputError
from imagebart.ui import messages
from imagebart.ui.environment import FOLDER_NAME

MAX_FILE = 40_000_000  # bytes of a file; larger ones are refused while they are still arriving
TIDY_INTERVAL = 60.0  # seconds
# Seconds after which a file is deleted, by how its name begins. The browser asks for a preview at once; "tmp" is an
# upload on its way, which gets another name when it has arrived.
MAX_AGES = {"preview-": 180.0, "tmp": 900.0}
MAX_AGE = 3600.0  # of all others
PERMANENT = "kept-"  # how the names of files begin that stay: the examples, the same ones each time
# Images of a run are sent at once and soon deleted: quick to write matters more than small.
PNG_COMPRESSION = 1


class DiskFull(InputError):
    """The disk for temporary files is full. The message is for the person, like that of any InputError."""


def publish(image: Image.Image, prefix: str = "imagebart") -> str:
    """Writes an image, losslessly, where the page may show it: its path. Raises DiskFull as `publish_file` does."""
    return publish_file("image.png", lambda path: image.save(path, compress_level=PNG_COMPRESSION), prefix)


def publish_preview(image: Image.Image) -> str:
    """The same for an image that is shown for a moment only: it is deleted soon."""
    return publish(image, "preview")


def publish_copy_as_preview(path: str) -> str:
    """Another name for a file, soon deleted: the browser may still ask for it when the file itself is gone."""

    def link(preview: Path) -> None:
        try:
            os.link(path, preview)
        except OSError:  # some file systems allow one name for a file
            shutil.copyfile(path, preview)

    return publish_file("image.png", link, "preview")


def publish_permanently(name: str, image: Image.Image) -> str:
    """An image that every server shows under the same name: written by whoever comes first, and never deleted."""
    path = Path(get_upload_folder()) / f"{PERMANENT}{name}"
    if not path.is_file():
        whole = publish_file("image.png", image.save)
        os.replace(whole, path)
    return str(path)


def publish_file(name: str, write: Callable[[Path], object], prefix: str = "imagebart") -> str:
    """Has a file written where the page may show it: its path, which begins with `prefix` and ends in `name`.

    Raises DiskFull where it cannot be written; nothing is left behind then.
    """
    folder = Path(get_upload_folder())
    path = folder / f"{prefix}-{uuid4().hex[:12]}-{name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(path)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise DiskFull(messages.DISK_FULL) from error
    return str(path)


@asynccontextmanager
async def tidying(_app: Any, interval: float = TIDY_INTERVAL) -> AsyncIterator[None]:
    """A server's lifespan in which its folder is tidied and freed memory given back: at once, then at intervals."""
    folder = Path(get_upload_folder())

    async def tidy_again_and_again() -> None:
        while True:
            await asyncio.to_thread(tidy, folder)
            await asyncio.to_thread(release_memory)
            await asyncio.sleep(interval)

    # Another folder than the one of `set_environment` may be shared with other programs.
    task = asyncio.create_task(tidy_again_and_again()) if folder.name.startswith(FOLDER_NAME) else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()


def tidy(folder: Path, now: float | None = None) -> int:
    """Deletes the files of `folder` that are too old at the time `now`, and empty folders; how many files."""
    now = time.time() if now is None else now
    deleted = 0
    # From the leaves to the root, so that emptied folders are seen after their files.
    for parent, folders, names in os.walk(folder, topdown=False):
        for name in names:
            # An upload, whose name anybody can choose, lies in a folder of its own.
            if not (name.startswith(PERMANENT) and Path(parent) == folder):
                deleted += _delete_if_old(Path(parent, name), now)
        for name in folders:
            path = Path(parent, name)
            try:
                if now - path.lstat().st_mtime > MAX_AGES["tmp"]:  # a new one is about to be filled
                    path.rmdir()
            except OSError:  # not empty
                continue
    return deleted


def _delete_if_old(path: Path, now: float) -> bool:
    age = next((age for prefix, age in MAX_AGES.items() if path.name.startswith(prefix)), MAX_AGE)
    try:
        # Not the time of the last change to its content, which a copy takes over from the original.
        if now - path.lstat().st_ctime <= age:
            return False
        path.unlink()
    except OSError:  # another server was faster
        return False
    return True


def release_memory() -> None:
    """Gives freed memory back to the system, where the C library can be asked to.

    glibc keeps what was freed in the heap of each thread, and Gradio's requests run in many threads: after a busy
    minute tens of megabytes would stay.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
