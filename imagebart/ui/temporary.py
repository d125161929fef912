"""The folder for temporary files: the page's own, tidied while it runs, whatever became of the runs and uploads.

Gradio deletes the files that it knows of; an upload that broke off, or files of a server that was killed, it does not.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from imagebart.ui.memory import give_back

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
