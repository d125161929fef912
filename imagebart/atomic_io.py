"""Files that are there whole or not at all: written beside their place, then moved there at once.

Whenever a program ends, however it ends, the old file or the new one is there. What a killed one left beside it is
removed by a later write to the same folder.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

PART = ".part-"  # how the name of a file that is being written begins
STALE = 3600.0  # seconds after which nobody writes to it any more
SAVING, SAVED, OBSOLETE = ".saving", ".saved", ".obsolete"  # see replace_files
OWN_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

Content = bytes | memoryview


def write_bytes(path: Path, content: Content) -> None:
    """Writes a file, or replaces one, which keeps its permissions; a link's target is what changes.

    Raises OSError, in one sentence, where that cannot be done; the file is then as it was.
    """
    try:
        if path.exists() and not path.is_file():  # a device or a pipe has no place beside it
            path.write_bytes(content)
            return
        place = path.resolve()
        _remove_stale(place.parent)
        part = place.with_name(f"{PART}{uuid4().hex[:12]}")
        try:
            part.write_bytes(content)
            if place.exists():
                shutil.copymode(place, part)
            part.replace(place)
        except BaseException:  # a person's Ctrl-C too
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise write_error(error, path, len(content)) from error


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of a text in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def replace_files(folder: Path, contents: Iterable[tuple[str, Content]], owned: Iterable[str] = ()) -> None:
    """Writes files of a folder that belong together; all of them change at once. The last is moved last.

    owned: names of files that go if there is no new one of that name. All are safe on the disk before the first is
    moved. Where a program is killed while they are moved, `recover_files` finishes the moves. Raises OSError as
    `write_bytes` does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    recover_files(folder)
    place = folder / SAVING
    remove(place)
    names: list[str] = []
    try:
        place.mkdir()
        for name, content in contents:
            try:
                (place / name).write_bytes(content)
            except OSError as error:
                raise write_error(error, folder / name, len(content)) from error
            names.append(name)
        (place / OBSOLETE).write_text("\n".join([*names, "", *sorted(set(owned) - set(names))]), encoding="utf-8")
        fsync_tree(place)
    except BaseException:
        remove(place)
        raise
    place.rename(folder / SAVED)
    recover_files(folder)


def recover_files(folder: Path) -> None:
    """Finishes a `replace_files` that was cut off while it moved files; call it before reading them."""
    saved = folder / SAVED
    if any(path.is_symlink() for path in (saved, saved / OBSOLETE)) or not (saved / OBSOLETE).is_file():
        remove(saved)
        return
    names, _, old = (saved / OBSOLETE).read_text(encoding="utf-8", errors="replace").partition("\n\n")
    for name in _file_names(old):
        (folder / name).unlink(missing_ok=True)
    for name in _file_names(names):
        with suppress(FileNotFoundError):  # moved before, or by another program at this moment
            (saved / name).replace(folder / name)
    remove(saved)


def _file_names(names: str) -> list[str]:
    """Those that name a file of the folder itself: it may be anybody's, and lead anywhere."""
    return [name for name in names.splitlines() if OWN_NAME.fullmatch(name)]


def replace_folder(new: Path, folder: Path, old: Path) -> None:
    """Puts a folder, all of it, in the place of another, which is then removed. All three lie in one folder.

    new is complete; at any moment `folder` or `old` holds all of what was there or of what is new.
    """
    fsync_tree(new)
    if folder.exists():
        remove(old)  # half of it, from a program that was killed here
        folder.rename(old)
    new.rename(folder)
    _fsync(folder.parent)
    remove(old)


def remove(folder: Path) -> None:
    """Removes a folder and all in it, if it is there; of a link, the link alone."""
    with suppress(FileNotFoundError):
        if folder.is_symlink() or folder.is_file():
            folder.unlink()
        else:
            shutil.rmtree(folder)


def fsync_tree(folder: Path) -> None:
    """Returns when all files of a folder, and of those in it, are safe from a loss of power."""
    for path in folder.rglob("*"):
        if path.is_file() or path.is_dir():
            _fsync(path)
    _fsync(folder)


def write_error(error: Exception, path: Path, size: int) -> OSError:
    """What went wrong with a file or folder of `size` bytes, as one sentence for the person at the machine."""
    number = error.errno if isinstance(error, OSError) else None
    reason = os.strerror(number) if number is not None else str(error).partition("\n")[0]
    sentence = f"{path.name} cannot be written to {path.parent.absolute()} ({reason})"
    if number is None or number in NO_ROOM:
        with suppress(OSError):
            free = shutil.disk_usage(path.parent).free
            sentence += f": it takes {format_bytes(size)}, and {format_bytes(free)} are free there"
    failure = OSError(sentence + ".")
    failure.errno = number
    return failure


def format_bytes(size: int) -> str:
    """A number of bytes as people read it: 1.2 MB."""
    value, units = float(size), iter(("bytes", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while value >= 1000 and unit != "TB":
        value, unit = value / 1000, next(units)
    return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"


def _remove_stale(folder: Path) -> None:
    """Removes what programs that were killed left while they wrote."""
    for path in folder.glob(PART + "[0-9a-f]" * 12):
        with suppress(OSError):  # another program was faster
            if time.time() - path.stat().st_mtime > STALE:
                path.unlink()


def _fsync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
