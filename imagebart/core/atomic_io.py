"""Files and folders that are there whole or not at all: written beside their place, then moved there."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Writes a file, or replaces one, which keeps its permissions; a link's target is what changes.

    Raises OSError, in one sentence, where that cannot be done; the file is then as it was.
    """
    try:
        if path.exists() and not path.is_file():  # a device or a pipe has no place beside it
            path.write_bytes(content)
            return
        place = path.resolve()
        new = place.with_name(f".{place.name[:100]}.{uuid4().hex[:8]}")
        try:
            new.write_bytes(content)
            if place.exists():
                shutil.copymode(place, new)
            new.replace(place)
        except BaseException:  # a person's Ctrl-C too
            new.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise write_error(error, path, len(content)) from error


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """An empty folder for files that are moved to their places when all are written; it is removed afterwards.

    What a program that was killed left in it goes with the next one.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_error(error: Exception, path: Path, size: int) -> OSError:
    """What went wrong with a file or folder of `size` bytes, as one sentence for the person at the machine."""
    number = error.errno if isinstance(error, OSError) else None
    reason = os.strerror(number) if number is not None else str(error).partition("\n")[0]
    sentence = f"{path.name} cannot be written to {path.parent.absolute()} ({reason})"
    if number is None or number in NO_ROOM:
        with suppress(OSError):
            free = shutil.disk_usage(path.parent).free
            sentence += f": it takes {format_bytes(size)}, and {format_bytes(free)} are free there"
    return OSError(sentence + ".")


def format_bytes(size: int) -> str:
    """A number of bytes as people read it: 1.2 MB."""
    thousands = (len(str(size)) - 1) // 3
    return f"{size / 1000**thousands:.{min(thousands, 1)}f} {('bytes', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB')[thousands]}"
