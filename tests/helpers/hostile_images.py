"""Valid images of each container, made large by blocks of every kind: a few long ones, or very many short ones."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO

from PIL import Image

SIDE = 32


def encoded(kind: str, **options: object) -> bytes:
    file = BytesIO()
    Image.linear_gradient("L").resize((SIDE, SIDE)).convert("RGB").save(file, kind, **options)
    return file.getvalue()


def repeated(block: bytes, size: int) -> bytes:
    return block * max(1, size // len(block))


def chunk(kind: bytes, data: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(kind: bytes, data: bytes, size: int, place: bytes) -> bytes:
    """A PNG with as many chunks as fit into the size before its first chunk of a kind."""
    image = encoded("PNG")
    at = image.index(place) - 4
    return image[:at] + repeated(chunk(kind, data), size) + image[at:]


def png_frames(size: int) -> bytes:
    """An animated PNG of many tiny frames."""
    image = encoded("PNG")
    control = struct.pack(">IIIIIHHBB", 0, SIDE, SIDE, 0, 0, 1, 1, 0, 0)
    frame = chunk(b"fcTL", control) + chunk(b"fdAT", bytes(4))
    at, end = image.index(b"IDAT") - 4, image.index(b"IEND") - 4
    count = size // len(frame)
    head = chunk(b"acTL", struct.pack(">II", count, 0)) + chunk(b"fcTL", control)
    return image[:at] + head + image[at:end] + frame * count + image[end:]


def segment(kind: int, data: bytes) -> bytes:
    """Of a JPEG."""
    return bytes([0xFF, kind]) + struct.pack(">H", len(data) + 2) + data


def jpeg(block: bytes, size: int, place: bytes) -> bytes:
    """A JPEG with as many blocks as fit into the size before a marker."""
    image = encoded("JPEG", progressive=True)
    at = image.rindex(place)
    return image[:at] + repeated(block, size) + image[at:]


def sub_blocks(data: bytes, count: int) -> bytes:
    return (bytes([len(data)]) + data) * count + b"\0"


def gif(block: bytes, size: int, place: bytes = b",") -> bytes:
    """A GIF with as many blocks as fit into the size before its image or its end."""
    image = encoded("GIF")
    at = len(image) - 1 if place == b";" else image.index(b",", 13 + 3 * 2 ** ((image[10] & 7) + 1))
    return image[:at] + repeated(block, size) + image[at:]


def riff(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def webp(block: bytes, size: int, first: bool) -> bytes:
    """An extended WebP with as many chunks as fit into the size before or after its pixels."""
    pixels, blocks = encoded("WEBP", lossless=True)[12:], repeated(block, size)
    canvas = bytes([0x3C, 0, 0, 0]) + struct.pack("<I", SIDE - 1)[:3] * 2
    body = riff(b"VP8X", canvas) + (blocks + pixels if first else pixels + blocks)
    return riff(b"RIFF", b"WEBP" + body)


def webp_frames(size: int) -> bytes:
    pixels = encoded("WEBP", lossless=True)[12:]
    frame = riff(b"ANMF", bytes(6) + struct.pack("<I", SIDE - 1)[:3] * 2 + bytes([1, 0, 0, 0]) + pixels)
    canvas = bytes([2, 0, 0, 0]) + struct.pack("<I", SIDE - 1)[:3] * 2
    return riff(b"RIFF", b"WEBP" + riff(b"VP8X", canvas) + riff(b"ANIM", bytes(6)) + repeated(frame, size))


BASE_TAGS = [(256, 4, 1, SIDE), (257, 4, 1, SIDE), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]


def tiff(tags: list[tuple[int, int, int, int]], data: bytes, pages: int = 1) -> bytes:
    """A grey TIFF: its pixels, data that its tags (number, type, count, value or place) share, and its pages' tags."""
    body = b"II*\0" + struct.pack("<I", 8 + SIDE * SIDE + len(data)) + bytes(SIDE * SIDE) + data
    entries = sorted([*BASE_TAGS, (273, 4, 1, 8), (278, 4, 1, SIDE), (279, 4, 1, SIDE * SIDE), *tags])
    page = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    length = len(page) + 4
    ends = [len(body) + length * (number + 1) for number in range(pages - 1)] + [0]
    return body + b"".join(page + struct.pack("<I", end) for end in ends)


def tiff_tags(count: int, kind: int, size: int) -> bytes:
    """Many tags that all have the same data."""
    width = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 12: 8, 13: 4}[kind]
    place = 8 + SIDE * SIDE
    return tiff([(40_000 + n, kind, size // width, place) for n in range(count)], bytes(size))


def tiff_strips(size: int) -> bytes:
    """An image whose rows are claimed to be in very many strips."""
    place = 8 + SIDE * SIDE
    body = tiff([], struct.pack("<I", 8) * (size // 4))
    old = struct.pack("<HHII", 273, 4, 1, 8)
    return body.replace(old, struct.pack("<HHII", 273, 4, size // 4, place))


def bmp(width: int, height: int, compression: int, data: bytes, gap: int = 0, bits: int = 8) -> bytes:
    palette = bytes(1024) if bits == 8 else b""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, 0, 0)
    offset = 14 + 40 + len(palette) + gap
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + header + palette + bytes(gap) + data


def deflated(size: int) -> bytes:
    """Zeros, a thousand times smaller."""
    return zlib.compress(bytes(size), 9)


def exif(count: int) -> bytes:
    """EXIF data with a directory of so many tags, which all say that the image is upside down."""
    return b"II*\0\x08\0\0\0" + struct.pack("<H", count) + struct.pack("<HHII", 0x112, 3, 1, 3) * count + bytes(4)


def hostile_images(size: int) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Names and files of about a size in bytes."""
    lengths = (("empty", 0), ("short", 4), ("middle", 1000), ("long", size))
    for kind in (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"iCCP", b"tIME", b"sBIT", b"prVt", b"IDAT", b"tRNS"):
        for name, length in lengths:
            data = (b"a\0" + bytes(length))[:length]
            for place in (b"IDAT", b"IEND"):
                yield f"png {kind.decode()} {name} before {place.decode()}", partial(png, kind, data, size, place)
    for kind, head in ((b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0"), (b"iCCP", b"a\0\0"), (b"IDAT", b"")):
        unpacked = partial(lambda head: head + deflated(50_000_000), head)
        yield f"png {kind.decode()} unpacks", lambda kind=kind, data=unpacked: png(kind, data(), size, b"IDAT")
    yield "png frames", partial(png_frames, size)
    segments = {"COM": 0xFE, "DQT": 0xDB, "DHT": 0xC4, "DRI": 0xDD, "DNL": 0xDC, "JPG": 0xF0}
    segments |= {f"APP{n}": 0xE0 + n for n in (0, 1, 2, 13, 14, 15)}
    heads = {"APP1": b"Exif\0\0", "APP2": b"ICC_PROFILE\0\1\1", "APP13": b"Photoshop 3.0\x008BIM", "APP0": b"JFIF\0"}
    for name, number in segments.items():
        for length in (0, 4, 60_000):
            block = segment(number, (heads.get(name, b"") + bytes(length))[: max(length, 0)])
            for place in (b"\xff\xc2", b"\xff\xda", b"\xff\xd9"):
                yield f"jpeg {name} of {length} before {place.hex()}", partial(jpeg, block, size, place)
    for name, block in (("fill", b"\xff"), ("zeros", b"\0"), ("restart", b"\xff\xd0"), ("start", b"\xff\xd8")):
        for place in (b"\xff\xc2", b"\xff\xda", b"\xff\xd9"):
            yield f"jpeg {name} before {place.hex()}", partial(jpeg, block, size, place)
    yield "jpeg exif of many tags", lambda: jpeg(segment(0xE1, b"Exif\0\0" + exif(5000)), size, b"\xff\xc2")
    for name, label in (("comment", 0xFE), ("application", 0xFF), ("text", 0x01), ("control", 0xF9), ("other", 0x77)):
        for length in (1, 255):
            for count in (1, size // (length + 1)):
                block = b"!" + bytes([label]) + sub_blocks(bytes(length), count)
                for place in (b",", b";"):
                    yield f"gif {name} {count} of {length} before {place!r}", partial(gif, block, size, place)
        yield f"gif {name} empty", partial(gif, b"!" + bytes([label]) + b"\0", size)
    yield "gif frames", partial(gif, encoded("GIF")[-30:-1], size, b";")
    yield "gif data", lambda: encoded("GIF")[:-2] + sub_blocks(b"\0", size // 2) + b";"
    for kind in (b"EXIF", b"XMP ", b"ICCP", b"prVt", b"ALPH"):
        for length in (0, 4, 1000, size):
            for first in (True, False):
                yield (
                    f"webp {kind.decode()} of {length} first {first}",
                    partial(webp, riff(kind, bytes(length)), size, first),
                )
    yield "webp exif of many tags", lambda: webp(riff(b"EXIF", exif(60_000)), size, False)
    yield "webp frames", partial(webp_frames, size)
    for kind in (1, 2, 3, 4, 5, 7, 12, 13):
        yield f"tiff one tag of type {kind}", partial(tiff_tags, 1, kind, size)
        yield f"tiff many tags of type {kind}", partial(tiff_tags, 20_000, kind, size // 2)
    yield "tiff many tags", partial(tiff_tags, 25_000, 4, 8)
    yield "tiff pages", lambda: tiff([], b"", size // 126)
    yield "tiff strips", partial(tiff_strips, size)
    yield "tiff exif", lambda: tiff([(34665, 4, 1, 8 + SIDE * SIDE)], exif(60_000)[8:])
    pixels = 6000 * 6600
    yield "bmp runs", lambda: bmp(6000, 6600, 1, b"\1\0" * (size // 2))
    yield "bmp runs of 4 bits", lambda: bmp(6000, 6600, 2, b"\1\0" * (size // 2))
    yield "bmp long runs", lambda: bmp(6000, 6600, 1, b"\xff\0" * (pixels // 255))
    yield "bmp jumps", lambda: bmp(6000, 6600, 1, b"\0\2\1\0" * (size // 4))
    yield "bmp gap", lambda: bmp(32, 32, 0, bytes(1024), gap=size)
    yield "bmp claims", lambda: bmp(6000, 6600, 0, bytes(1000))
