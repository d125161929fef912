"""Files of weights within bounds: how much of them is read before it is known what they are.

A file may hold anything. Lists of what is in it are short in real ones; long ones take minutes and gigabytes to read.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from imagebart.weights.errors import WeightsError

LARGEST_TEXT = 2_000_000  # bytes of a configuration; those of published models have some 30 thousand
LARGEST_LIST = 2 * 2**20  # bytes that name a file's tensors or entries; published ones have some hundred thousand


def read_text(path: Path) -> str:
    """A text in UTF-8. Raises WeightsError where it is none, cannot be read, or has over LARGEST_TEXT bytes."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_TEXT + 1)
        if len(content) > LARGEST_TEXT:
            raise WeightsError(f"{path} has {path.stat().st_size:,} bytes, expected at most {LARGEST_TEXT:,}")
        return content.decode("utf-8")
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise WeightsError(f"{path} is no text in UTF-8: {error}") from error


def checked_header(path: Path) -> Path:
    """The path of a file of safetensors, if its header may be read. Raises WeightsError where it is too long."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    if length > LARGEST_LIST:
        raise WeightsError(f"{path} is damaged or no safetensors: its header has {length:,} bytes, expected fewer")
    return path


class ShortReads(io.FileIO):
    """A file for `zipfile`, which reads the list of all entries at once: refused where it is too long."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > LARGEST_LIST:
            raise zipfile.BadZipFile(f"its list of entries has {size:,} bytes, expected at most {LARGEST_LIST:,}")
        return super().read(size)
