"""Image files: opened safely, whatever they hold; written whole; converted to tensors and back; animations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

from imagebart.atomic_io import write_bytes
from imagebart.errors import InputError, format_value
from imagebart.imaging.structure import open_checked

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # not EPS, which would start Ghostscript
FORMAT_NAMES = "PNG, JPEG, WebP, GIF, BMP or TIFF"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")  # of such files, in a folder
MIN_SIDE = 16
MAX_SIDE = 30_000
MAX_PIXELS = 40_000_000
MAX_SCANS = 64  # of a JPEG: decoding one passes over the whole image, however short it is; programs write ten
MAX_SCANNED = 600_000_000  # pixels of all scans
SCAN = re.compile(rb"\xff\xda\0(\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")  # its header, of 1 to 4 colors
MAX_LAB_PIXELS = 10_000_000  # converting them takes a second
MAX_MEMORY = 300_000_000  # bytes that reading a file takes, the image itself included
SPARE_MEMORY = 8_000_000  # of them, for all that does not grow with the image
PIXEL_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}  # Pillow's; 4 of all other modes
TIFF_COMPRESSIONS = (1, 2, 3, 4, 5, 6, 7, 8, 32771, 32773, 32946)  # LZMA and others take many seconds
BITS, COMPRESSION, PHOTOMETRIC, ROWS, SAMPLES, TILE_WIDTH, TILE_LENGTH = 258, 259, 262, 278, 277, 322, 323  # tags
YCBCR = 6  # of PHOTOMETRIC
TURNS = {  # what makes an image of each EXIF orientation upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
BAND = 64  # rows that are worked on at a time

# Blocks over 32 MB are given back to the system as soon as they are freed.
Image.core.set_block_size(64 << 20)

Source = str | Path | bytes | Image.Image


def load_image(source: Source, name: str = "image") -> Image.Image:
    """An image as people see it: 8 bits a channel, upright, "RGB", or "RGBA" where it has transparency.

    source: a file's path, a file's bytes or an opened image (left as it is). The size is checked before pixels are
    decoded; of a file, also the memory that decoding takes. Of the metadata only an RGB colour profile is kept, as the
    pixels are not converted.

    16-bit grey is scaled by 1/257; "I" is read as 8 bits where no value is over 255, otherwise as 16 bits; "F" as 0..1
    or 0..255; values beyond those ranges are scaled to the range from the smallest to the largest.

    Raises InputError, in which the image is called `name`, if it is missing, not one of `FORMATS`, damaged, animated,
    of several pages, under MIN_SIDE or over MAX_SIDE a side, over MAX_PIXELS, or would take over MAX_MEMORY.
    """
    if isinstance(source, Image.Image):
        return _decode(source, name)
    if isinstance(source, bytes):
        return _open(source, name, empty=not source)
    if not isinstance(source, str | Path):
        raise InputError(f"The {name} is {format_value(source)}; give a {FORMAT_NAMES} file or an opened image.")
    path = Path(source)
    try:
        empty = path.stat().st_size == 0
        if not path.is_file():
            raise OSError
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        there_is_no = f"There is no {name} file {path.name[:80]!r}"
        raise InputError(f"{there_is_no}; choose an existing {FORMAT_NAMES} file.") from error
    return _open(path, name, empty)


def save_image(image: Image.Image, path: str | Path, **options: Any) -> None:
    """Writes an image, whole or not at all, in the format of the name's ending, or options["format"].

    options: Pillow's. Raises OSError (see `write_bytes`), InputError for an unknown ending.
    """
    place, file = Path(path), BytesIO()
    by_ending = Image.registered_extensions().get(place.suffix.lower())  # registers all formats
    kind = options.pop("format", by_ending)
    if kind not in Image.SAVE:
        raise InputError(f"An image cannot be written to {place.name!r}; end the name in .png.")
    image.save(file, format=kind, **options)
    write_bytes(place, file.getbuffer())


def flatten(image: Image.Image, background: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """An "RGB" or "RGBA" image as "RGB", on a background colour (white)."""
    if image.mode == "RGB":
        return image
    if image.mode != "RGBA":
        raise ValueError(f"image has mode {image.mode!r}; RGB or RGBA is needed (load_image makes one)")
    result = Image.new("RGB", image.size)
    for i, band in enumerate(_bands(image)):
        ground = Image.new("RGBA", band.size, (*background, 255))
        result.paste(Image.alpha_composite(ground, band).convert("RGB"), (0, i * BAND))
    return result


def normalize(levels: torch.Tensor) -> torch.Tensor:
    """Pixels of 0 to 255 as float32 in [-1, 1]."""
    return levels.float() / 127.5 - 1


def denormalize(images: torch.Tensor) -> torch.Tensor:
    """The inverse of `normalize`: uint8, rounded, and clipped outside of [-1, 1]."""
    return ((images.detach().float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """An "RGB" image of W x H as float32 [1, 3, H, W] in [-1, 1]."""
    if image.mode != "RGB":
        raise ValueError(f"image has mode {image.mode!r}; RGB is needed (flatten makes one)")
    return normalize(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].contiguous())


def to_images(tensor: torch.Tensor) -> list[Image.Image]:
    """Float [B, 3, H, W] in [-1, 1] as B "RGB" images; see `denormalize`."""
    if tensor.ndim != 4 or tensor.shape[1] != 3:
        raise ValueError(f"tensor has shape {tuple(tensor.shape)}; [B, 3, H, W] is needed")
    return [Image.fromarray(p) for p in denormalize(tensor).permute(0, 2, 3, 1).cpu().contiguous().numpy()]


def _open(file: Path | bytes, name: str, empty: bool) -> Image.Image:
    if empty:
        raise InputError(f"The {name} file is empty (0 bytes); choose a {FORMAT_NAMES} file.")
    try:
        with open_checked(file, FORMATS, name) as image:
            return _decode(image, name, size=len(file) if isinstance(file, bytes) else file.stat().st_size)
    except InputError:
        raise
    # Pillow judges the largest headers itself; its warning is an exception under -W error.
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        known = (Image.MAX_IMAGE_PIXELS or MAX_PIXELS) // 1_000_000
        raise InputError(_too_large(name, f"has more than {known} megapixels")) from error
    except UnidentifiedImageError as error:
        raise InputError(f"The {name} file is not an image we can read; choose a {FORMAT_NAMES} file.") from error
    except Exception as error:  # hostile bytes make decoders raise nearly anything
        raise InputError(_damaged(name)) from error


def _decode(image: Image.Image, name: str, size: int | None = None) -> Image.Image:
    """size: bytes of the file that the image was just opened from; None for an image that somebody else may use."""
    _check_size(image.size, name)
    buffered = isinstance(image, JpegImagePlugin.JpegImageFile) and _is_buffered(image, name)
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(COMPRESSION, 1) not in TIFF_COMPRESSIONS:
        raise InputError(f"The {name} is a TIFF of a compression that few programs know; save it again as a PNG.")
    if image.mode == "LAB" and image.width * image.height > MAX_LAB_PIXELS:
        raise InputError(f"The {name} is in LAB colors, with too many pixels for them; save it again in RGB.")
    if size is not None:
        _check_memory(_decoder_bytes(image, buffered, size), image, name)
    try:
        several = getattr(image, "is_animated", False)
    except Exception as error:
        raise InputError(_damaged(name)) from error
    # Phones store a JPEG with a preview beside it as "MPO"; its first frame is the image.
    if several and image.format != "MPO":
        kind = "has several pages" if image.format == "TIFF" else "is animated"
        raise InputError(f"The {name} {kind}; save the one you want as a still PNG and use that.")
    try:
        image.load()
        return _to_8_bit(image, name, owned=size is not None)
    except InputError:
        raise
    except Exception as error:
        raise InputError(_damaged(name)) from error


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    found = f"is {width:,} × {height:,} pixels"
    if min(size) < MIN_SIDE:
        raise InputError(f"The {name} {found}; at least {MIN_SIDE} × {MIN_SIDE} are needed.")
    if max(size) > MAX_SIDE or width * height > MAX_PIXELS:
        raise InputError(_too_large(name, found))


def _check_memory(needed: float, image: Image.Image, name: str) -> None:
    if needed > MAX_MEMORY - SPARE_MEMORY:
        raise InputError(
            f"The {name}, a {image.format} of {image.width:,} × {image.height:,} pixels, would take "
            f"{needed / 1e6:,.0f} MB of memory to read; make it smaller, or save it as a plain PNG or JPEG."
        )


def _decoder_bytes(image: Image.Image, buffered: bool, size: int) -> float:
    """Memory that Pillow takes to decode a file of `size` bytes, the pixels included; as measured.

    buffered: whether a JPEG is decoded only when all of its scans were read.
    """
    pixels = image.width * image.height
    result = pixels * PIXEL_BYTES.get(image.mode, 4)
    if image.format == "WEBP":  # two canvases, bytes for Python and the image
        return 4 * result + size
    if buffered:  # coefficients of two bytes; a sampling of 2 is 4:2:0
        return result + pixels * (3 if JpegImagePlugin.get_sampling(image) == 2 else 2 * len(image.getbands()))
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tile and image.tile[0].codec_name == "libtiff":
        tags = image.tag_v2
        width, height = image.width, min(_largest(tags.get(ROWS), image.height), image.height)
        if TILE_WIDTH in tags:  # a small image's may be huge
            width, height = _largest(tags[TILE_WIDTH], 0), _largest(tags.get(TILE_LENGTH), 0)
        bits = _largest(tags.get(BITS), 1) * _largest(tags.get(SAMPLES), 1)
        return result + width * height * (4 if tags.get(PHOTOMETRIC) == YCBCR else bits / 8)
    return result


def _is_buffered(image: JpegImagePlugin.JpegImageFile, name: str) -> bool:
    """Whether a JPEG that is not decoded yet has more than one scan of all colors; raises InputError for too many."""
    file: IO[bytes] | None = image.fp  # none once it was decoded
    if file is None:
        return False
    place, end = file.tell(), b""
    scans: list[bytes] = []
    file.seek(0)
    while chunk := file.read(2**20):
        scans += SCAN.findall(end + chunk)
        end = (end + chunk)[-4:]
    file.seek(place)
    if len(scans) > min(MAX_SCANS, MAX_SCANNED // (image.width * image.height)):
        raise InputError(
            f"The {name} is a JPEG of {len(scans):,} scans, too many for its size; save it again as a plain one."
        )
    return bool(image.info.get("progressive")) or [scan[1] for scan in scans] != [len(image.getbands())]


def _largest(value: object, default: int) -> int:
    """A TIFF tag's largest number. A damaged one is left to the decoder."""
    numbers = [number for number in (value if isinstance(value, tuple) else (value,)) if isinstance(number, int)]
    return max(numbers, default=default)


def _too_large(name: str, found: str) -> str:
    limit = f"{MAX_PIXELS // 1_000_000} megapixels and {MAX_SIDE:,} pixels a side"
    return f"The {name} {found}; make it smaller, at most {limit}."


def _damaged(name: str) -> str:
    return f"The {name} file is damaged or cut short; save or download it again as a {FORMAT_NAMES} file."


def _orientation(image: Image.Image) -> int:
    """Of EXIF: 1 is upright, 2 to 8 are mirrored or turned."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # unreadable metadata: the pixels as stored
        return 1
    return found if found in TURNS else 1


def _to_8_bit(image: Image.Image, name: str, owned: bool) -> Image.Image:
    """A decoded image as a new one, upright, "RGB" or "RGBA"; an owned one is closed before there are three copies."""
    profile = image.info.get("icc_profile")
    # A grey or CMYK profile would be wrong for RGB pixels.
    colored = image.mode in ("RGB", "RGBA", "RGBX", "RGBa", "P", "PA")
    mode, orientation = "RGBA" if image.has_transparency_data else "RGB", _orientation(image)
    deep = image.mode.startswith("I") or image.mode == "F"
    if orientation == 1 and not deep and owned and image.mode == mode:
        result = image._new(image.im)
    elif orientation == 1 and not deep and (not owned or image.mode in PIXEL_BYTES):
        result = image.convert(mode)
    else:
        result = _rewrite(image, mode, orientation, deep, name, owned)
    result.info = {"icc_profile": profile} if profile and colored else {}
    return result


def _rewrite(image: Image.Image, mode: str, orientation: int, deep: bool, name: str, owned: bool) -> Image.Image:
    """An image converted and turned, in bands and by way of an array of as few channels as it has, to save memory."""
    clear = image.info.get("transparency") if deep else None
    kept = "LA" if image.mode in ("LA", "La") or isinstance(clear, int) else "L" if deep else mode
    pixels, channels = image.width * image.height, len(kept)
    if owned:
        _check_memory(pixels * max(PIXEL_BYTES.get(image.mode, 4) + channels, channels + 4), image, name)
    start, factor = _gray_range(image) if deep else (0.0, 1.0)
    array = np.empty((image.height, image.width, channels), np.uint8)
    for i, band in enumerate(_bands(image)):
        rows = array[i * BAND : i * BAND + BAND]
        if deep:
            rows[..., 0] = np.rint((_numbers(band) - start) * factor)
            if isinstance(clear, int):
                rows[..., 1] = np.where(np.asarray(band) == clear, 0, 255)
        else:
            rows[:] = np.asarray(band.convert(kept)).reshape(rows.shape)
    if owned:
        image.close()
    size = (image.height, image.width) if orientation > 4 else image.size
    result = Image.new(mode, size)
    for top in range(0, len(array), BAND):
        rows = array[top : top + BAND]
        band = Image.fromarray(rows[..., 0] if channels == 1 else rows)
        band = band if kept == mode else band.convert(mode)
        place = len(array) - top - len(rows) if orientation in (3, 4, 6, 7) else top
        turned = band.transpose(TURNS[orientation]) if orientation in TURNS else band
        result.paste(turned, (place, 0) if orientation > 4 else (0, place))
    return result


def _gray_range(image: Image.Image) -> tuple[float, float]:
    """What becomes black, and by what the rest is multiplied so that white becomes 255; see `load_image`."""
    extremes = [(float(values.min()), float(values.max())) for values in map(_numbers, _bands(image))]
    low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
    ranges = {"F": (1.0, 255.0), "I": (255.0, 65535.0)}.get(image.mode, (65535.0,))
    top = next((top for top in ranges if high <= top), None)
    if low < 0 or top is None:
        return low, 255.0 / ((high - low) or 1.0)
    return 0.0, 255.0 / top


def _numbers(image: Image.Image) -> npt.NDArray[np.float32]:
    values = np.asarray(image).astype(np.float32)
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0) if image.mode == "F" else values


def _bands(image: Image.Image) -> Iterator[Image.Image]:
    """The image in bands of BAND rows, as conversions of a large one would take gigabytes."""
    for top in range(0, image.height, BAND):
        yield image.crop((0, top, image.width, min(top + BAND, image.height)))


ANIMATION_FORMATS = {".webp": "WEBP", ".gif": "GIF"}
HOLD = 2.0  # seconds more for the last frame
SHORTEST = 0.02  # seconds a frame, as browsers slow down shorter ones


def animation_format(path: str | Path) -> str:
    """Pillow's name for the format of a .webp or .gif; raises InputError for another ending."""
    kind = ANIMATION_FORMATS.get(Path(path).suffix.lower())
    if kind is None:
        raise InputError(f"An animation cannot be written to {Path(path).name!r}; end the name in .webp or .gif.")
    return kind


def save_animation(frames: Sequence[Image.Image], path: str | Path, seconds: float) -> None:
    """Writes frames ("RGB" or "RGBA", one size) as an endless .webp, lossless, or .gif, on white in 256 colours.

    seconds: of the animation, and HOLD more for its last frame; at least SHORTEST a frame. Raises InputError for
    another ending, ValueError for no frames or several sizes.
    """
    kind = animation_format(path)
    if not frames:
        raise ValueError("there are no frames, expected one or more")
    sizes = {frame.size for frame in frames}
    if len(sizes) > 1:
        raise ValueError(f"frames have sizes {sorted(sizes)}, expected one size")
    if not seconds > 0:
        raise ValueError(f"{seconds} seconds, expected more than 0")
    each = max(seconds / len(frames), SHORTEST)
    durations = [round(1000 * each)] * (len(frames) - 1) + [round(1000 * (each + HOLD))]
    if kind == "GIF":
        frames = [flatten(frame) for frame in frames]
    first, *rest = frames
    moving = {"save_all": True, "append_images": rest, "duration": durations, "loop": 0}
    save_image(first, path, format=kind, lossless=True, **moving)
