"""The structure of image files, checked before Pillow opens them.

Pillow reads metadata in Python, some of it in quadratic time: a file of few pixels and many blocks (chunks, segments,
tags) could take minutes. Here the blocks are counted; pixels, checksums and meanings are left to the decoders, and so
is whatever is damaged.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from PIL import Image

from imagebart.errors import InputError

Content = bytes | mmap.mmap
Block = tuple[bytes, int, int]  # kind, first byte of its data, length of its data

MAX_BLOCKS = 20_000  # of a file, without a GIF's pixels; encoders write some thousand
MIN_PIXEL_BLOCK = 128  # bytes of a GIF's blocks of pixels, on average; encoders write 255
MAX_SLOW_BYTES = 2_000_000  # of blocks that Pillow joins, or takes apart, in Python
MAX_TAG_VALUES = 500_000
MAX_RUNS = 4_000_000  # pixels, and bytes, of a run-length encoded BMP, which Pillow decodes in Python
SLOW = {b"GIF extension": 500_000}  # where it is quadratic
FILL = b"\xff" * 70_000  # between a JPEG's segments, where libjpeg starts again with each part of the file that it gets
ARITHMETIC = tuple(bytes([0xFF, marker]) for marker in (0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF))  # decoded slowly
SEGMENTS = {*range(0xC0, 0xD0), *range(0xDA, 0xF0), 0xFE} - {0xC8}  # JPEG's markers that a length follows
TAG_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
BYTE_TYPES = (1, 2, 6, 7)


def open_checked(file: str | Path | bytes, formats: tuple[str, ...], name: str = "image") -> Image.Image:
    """`Image.open`, after `check_structure`."""
    if isinstance(file, bytes):
        check_structure(file, name)
        return Image.open(BytesIO(file), formats=formats)
    with Path(file).open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        check_structure(content, name)
    return Image.open(file, formats=formats)


def check_structure(content: Content, name: str) -> None:
    """Raises InputError, in which the image is called `name`, for a file whose metadata would take long to read."""
    blocks, pixel_blocks, slow = 0, 0, 0
    for kind, start, length in _blocks(content):
        blocks, pixel_blocks = blocks + (kind != b"GIF image"), pixel_blocks + (kind == b"GIF image")
        if blocks > MAX_BLOCKS or pixel_blocks > MAX_BLOCKS + len(content) // MIN_PIXEL_BLOCK:
            raise InputError(f"The {name} has over {MAX_BLOCKS:,} blocks of data; save it again as a plain PNG.")
        exif = _exif(content, kind, start, length)
        slow += length if kind in (b"\xff\xed", b"GIF extension") or (exif is not None and kind != b"TIFF") else 0
        if slow > SLOW.get(kind, MAX_SLOW_BYTES) or (exif is not None and _too_many_tags(content, *exif)):
            raise InputError(f"The {name} has too much metadata; save it again without.")
        if kind in ARITHMETIC:
            raise InputError(f"The {name} is an arithmetic-coded JPEG, which few programs know; save it plain.")
        if kind == b"BMP runs" and length > MAX_RUNS:
            raise InputError(f"The {name} is a run-length encoded BMP of over {MAX_RUNS:,} pixels; save it as PNG.")


def _exif(content: Content, kind: bytes, start: int, length: int) -> tuple[int, int] | None:
    """Where a block holds a TIFF structure: its first byte, and one after its last."""
    if kind == b"TIFF" or kind in (b"eXIf", b"EXIF"):
        skip = 6 if content[start : start + 6] == b"Exif\0\0" else 0
        return start + skip, start + length
    if kind == b"\xff\xe1" and content[start : start + 6] == b"Exif\0\0":
        return start + 6, start + length
    return None


def _blocks(content: Content) -> Iterator[Block]:
    """The blocks of a file, as far as they can be found."""
    try:
        if content[:8] == b"\x89PNG\r\n\x1a\n":
            yield from _chunks(content, 8, ">I4s", 4)
        elif content[:4] == b"RIFF":
            yield from _chunks(content, 12, "<4sI", 0)
        elif content[:2] == b"\xff\xd8":
            yield from _segments(content)
        elif content[:3] == b"GIF":
            yield from _gif_blocks(content)
        elif content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            yield b"TIFF", 0, len(content)
        elif content[:2] == b"BM" and content[14:15] == b"\x28" and content[30:31] in (b"\1", b"\2"):
            width, height = struct.unpack_from("<ii", content, 18)
            yield b"BMP runs", 0, max(len(content), width * abs(height))
    except (struct.error, IndexError):
        return  # cut short


def _chunks(content: Content, place: int, head: str, checksum: int) -> Iterator[Block]:
    """Of a PNG or WebP."""
    while place + 8 <= len(content):
        first, second = struct.unpack_from(head, content, place)
        kind, length = (second, first) if isinstance(first, int) else (first, second + second % 2)
        yield kind, place + 8, length
        place += 8 + length + checksum


def _segments(content: Content) -> Iterator[Block]:
    """Of a JPEG, up to its first scan. A byte that is in no segment is a block."""
    place = 2
    while place < len(content):
        kind = content[place : place + 2]
        if kind[0] != 0xFF or kind[1] not in SEGMENTS:
            yield b"", place, 1
            place += 1
            continue
        (length,) = struct.unpack_from(">H", content, place + 2)
        if kind == b"\xff\xda":
            if content.find(FILL, place) >= 0:
                yield from ((b"", place, 1) for _ in FILL)
            return
        yield kind, place + 4, length - 2
        place += 2 + length


def _gif_blocks(content: Content) -> Iterator[Block]:
    """The sub-blocks of a GIF up to its second image, and bytes that are in none."""
    place, images = 13 + _palette(content[10]), 0
    while place < len(content) and images < 2 and content[place] != ord(";"):
        kind = b""
        if content[place] == ord("!"):
            kind, place = b"GIF extension", place + 2
        elif content[place] == ord(","):
            kind, place = b"GIF image", place + 11 + _palette(content[place + 9])
            images += 1
        else:
            yield b"", place, 1
            place += 1
            continue
        while content[place]:
            yield kind, place + 1, content[place]
            place += 1 + content[place]
        yield kind, place, 0
        place += 1


def _palette(flags: int) -> int:
    return 3 << (flags % 8 + 1) if flags & 0x80 else 0


def _too_many_tags(content: Content, start: int, end: int) -> bool:
    """Whether the tags of a TIFF structure's directory are too many, too long, or share their data, which adds up."""
    order = "<" if content[start : start + 2] == b"II" else ">"
    big = content[start + 2 : start + 4] in (b"+\0", b"\0+")
    number, entry, inline = ("Q", "HHQ8s", 8) if big else ("I", "HHI4s", 4)
    try:
        (place,) = struct.unpack_from(order + number, content, start + (8 if big else 4))
        place += start
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), content, place)
        place += 8 if big else 2
        total, step = 0, struct.calcsize(order + entry)
        for at in range(place, min(place + count * step, end), step):
            _, kind, values, data = struct.unpack_from(order + entry, content, at)
            size = values * TAG_SIZES.get(kind, 0)
            if size > inline:
                (offset,) = struct.unpack(order + number, data)
                if start + offset + size > end:
                    return False  # Pillow stops here
                total += size
            if total > end - start or (kind not in BYTE_TYPES and values > MAX_TAG_VALUES):
                return True
    except struct.error:
        return False  # cut short
    return count > MAX_BLOCKS
