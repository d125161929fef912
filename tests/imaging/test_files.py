"""Image files of every kind: read safely, written whole, to tensors and back; animations, read back frame by frame."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from imagebart.core.errors import InputError
from imagebart.imaging.files import (
    FORMATS,
    HOLD,
    MAX_SIDE,
    MIN_SIDE,
    flatten,
    load_image,
    save_animation,
    to_images,
    to_tensor,
)


def colours(height: int = 24, width: int = 37, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def loaded(image: Image.Image, kind: str = "PNG", **options: object) -> np.ndarray:
    return np.asarray(load_image(encoded(image, kind, **options)))


def png_header(width: int, height: int) -> bytes:
    """A PNG with a header and one byte of pixels, which cannot be decoded."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"\0")]
    parts = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def refused(source: object, *words: str) -> None:
    """Asserts one sentence with these words."""
    with pytest.raises(InputError) as caught:
        load_image(source)
    sentence = str(caught.value)
    for word in words:
        assert word in sentence
    assert sentence.count(". ") == 0 and sentence.endswith(".") and "\n" not in sentence and len(sentence) < 300


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_rgb_is_exact_from_bytes_path_and_image(kind: str, tmp_path: Path) -> None:
    pixels = colours()
    data = encoded(Image.fromarray(pixels), kind, **({"lossless": True} if kind == "WEBP" else {}))
    path = tmp_path / "image.bin"
    path.write_bytes(data)
    for source in (data, path, str(path), Image.fromarray(pixels), Image.open(BytesIO(data))):
        image = load_image(source)
        assert image.mode == "RGB" and np.array_equal(np.asarray(image), pixels)


def test_alpha_grey_and_one_bit_are_exact() -> None:
    rgba, bits = colours(channels=4), colours(channels=1)[..., 0] > 127
    rgba[:5, :, 3] = 0  # hidden colours too
    assert np.array_equal(loaded(Image.fromarray(rgba)), rgba)
    assert np.array_equal(loaded(Image.fromarray(rgba[..., 2:].copy(), "LA")), rgba[..., [2, 2, 2, 3]])
    assert np.array_equal(loaded(Image.fromarray(rgba[..., 0])), rgba[..., [0, 0, 0]])
    assert np.array_equal(loaded(Image.fromarray(bits)), bits[..., None].repeat(3, 2) * np.uint8(255))


@pytest.mark.parametrize("transparent", [False, True])
def test_palette(transparent: bool) -> None:
    random = np.random.default_rng(1)
    palette, index = (random.integers(0, 256, shape, dtype=np.uint8) for shape in ((256, 3), (24, 37)))
    index[0, 0] = 9
    source = Image.fromarray(index, "P")
    source.putpalette(palette.tobytes())
    image = loaded(source, **({"transparency": 9} if transparent else {}))
    opaque = index != 9 if transparent else np.ones_like(index, bool)
    assert image.shape[2] == (4 if transparent else 3)
    assert np.array_equal(image[..., :3][opaque], palette[index][opaque])
    assert not transparent or np.array_equal(image[..., 3], np.where(index == 9, 0, 255))


def test_sixteen_bit_grey() -> None:
    deep = np.random.default_rng(3).integers(0, 65536, (24, 37), dtype=np.uint16)
    deep[0, :3] = [0, 257 * 200, 65535]
    expected = [[[round(int(value) / 257)] * 3 for value in row] for row in deep]
    assert np.array_equal(loaded(Image.fromarray(deep)), expected)


def test_cmyk() -> None:
    inks = np.zeros((20, 40, 4), np.uint8)
    for channel in range(4):
        inks[:, 10 * channel : 10 * channel + 10, channel] = 255
    jpeg = loaded(Image.fromarray(inks, "CMYK"), "JPEG", quality=100, subsampling=0)
    assert np.abs(jpeg[5, 4::10] - np.array([[0, 255, 255], [255, 0, 255], [255, 255, 0], [0, 0, 0]])).max() < 8


# Where a viewer puts stored row r, column c, after the EXIF standard's table of orientations.
ORIENTATIONS = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: p[::-1].transpose(1, 0, 2),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: p[:, ::-1].transpose(1, 0, 2),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("kind", ["PNG", "PNG of 16 bits", "WEBP"])
def test_exif_orientation(orientation: int, kind: str) -> None:
    pixels, exif = colours(), Image.Exif()
    exif[0x0112] = orientation
    source = Image.fromarray(pixels)
    if kind == "PNG of 16 bits":
        source, pixels = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), pixels[..., [0, 0, 0]]
    options = {"lossless": True} if kind == "WEBP" else {}
    image = load_image(encoded(source, kind.split()[0], exif=exif, **options))
    assert np.array_equal(np.asarray(image), ORIENTATIONS[orientation](pixels))
    assert np.array_equal(np.asarray(load_image(image)), np.asarray(image))  # not turned twice
    assert 0x0112 not in image.getexif()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_metadata_does_not_hide_a_good_image() -> None:
    assert np.array_equal(loaded(Image.fromarray(colours()), exif=b"Exif\0\0MM\0*\0\0\xff\xff"), colours())


def test_metadata_is_dropped_except_the_colour_profile() -> None:
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    image = load_image(encoded(Image.fromarray(colours()), exif=exif, icc_profile=b"profile", dpi=(72, 72)))
    assert image.info == {"icc_profile": b"profile"}
    assert b"where I live" not in encoded(image)
    for mode in ("L", "LA", "I;16"):  # a grey profile is wrong for colours
        assert load_image(encoded(Image.new(mode, (20, 20)), icc_profile=b"profile")).info == {}


def test_phone_jpeg_with_a_preview_beside_it() -> None:
    first, second = Image.new("RGB", (64, 48), "red"), Image.new("RGB", (32, 24), "blue")
    image = loaded(first, "MPO", save_all=True, append_images=[second])
    assert image.shape == (48, 64, 3)
    assert np.abs(image[9, 9].astype(int) - (255, 0, 0)).max() < 5


def test_the_source_is_left_as_it_is() -> None:
    source = Image.fromarray(colours())
    source.info["dpi"] = (72, 72)
    load_image(source).putpixel((0, 0), (1, 2, 3))
    assert source.info == {"dpi": (72, 72)}
    assert np.array_equal(np.asarray(source), colours())


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_animated(kind: str) -> None:
    frames = [Image.new("RGB", (30, 30), colour) for colour in ("red", "green", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    refused(data, "animated", "still PNG")


@pytest.mark.filterwarnings("ignore")  # Pillow's remarks on broken metadata
@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_or_damaged_anywhere(kind: str) -> None:
    random, data = np.random.default_rng(11), encoded(Image.fromarray(colours(64, 64)), kind)
    for part in (0.02, 0.1, 0.5, 0.9):
        refused(data[: int(len(data) * part)], "file")
    for _ in range(60):
        damaged = bytearray(data)
        for place in random.integers(0, min(len(data), 200), 4):
            damaged[place] = random.integers(256)
        with suppress(InputError):
            load_image(bytes(damaged))


NO_IMAGES: list[tuple[object, list[str]]] = [
    (b"hello", ["not an image we can read", "PNG, JPEG"]),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", ["not an image"]),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n", ["not an image"]),
    *((encoded(Image.new("RGB", (32, 32)), kind), ["not an image"]) for kind in ("EPS", "PPM", "GIF", "BMP", "TIFF")),
    (b"", ["not an image"]),
    (Path("absent.png"), ["absent.png", "existing"]),
    (Path("."), ["existing"]),
    *((source, []) for source in (None, 3, ["a.png"], "a" * 5000, "a\0b", "", ".")),
    (png_header(0, 0), ["not an image"]),
    (Image.new("RGB", (0, 0)), ["0 × 0", "16 × 16"]),
    (encoded(Image.new("RGB", (MIN_SIDE - 1, 400))), ["15 × 400", "16 × 16"]),
    (png_header(50_000, 50_000), ["too many pixels", "at most 25"]),
    (png_header(10_000, 10_000), ["10,000 × 10,000", "at most 25"]),
    (png_header(5_001, 5_000), ["5,001 × 5,000", "at most 25"]),
    (png_header(MAX_SIDE + 1, 20), ["30,001 × 20", "30,000"]),
    (png_header(5_000, 5_000), ["damaged"]),  # small enough, so that its missing pixels were looked for
]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("source", "words"), NO_IMAGES, ids=range(len(NO_IMAGES)))
def test_what_cannot_be_read_is_said_in_a_sentence(source: object, words: list[str]) -> None:
    refused(source, *words)


def test_the_smallest_image() -> None:
    assert loaded(Image.new("RGB", (MIN_SIDE, MIN_SIDE))).shape == (MIN_SIDE, MIN_SIDE, 3)


@pytest.mark.filterwarnings("error")
def test_bomb_warnings_as_errors_are_handled() -> None:
    refused(png_header(10_000, 10_000), "too many pixels", "at most 25")


def test_flatten_composites_on_white() -> None:
    pixels = colours(channels=4)
    got = np.asarray(flatten(Image.fromarray(pixels))).astype(float)
    share = pixels[..., 3:].astype(float) / 255
    assert np.abs(got - (pixels[..., :3] * share + 255 * (1 - share))).max() <= 1
    opaque = Image.fromarray(colours())
    assert np.array_equal(np.asarray(flatten(opaque)), np.asarray(opaque))


def test_tensor_round_trip_and_range() -> None:
    image = Image.fromarray(np.arange(768, dtype=np.int64).reshape(16, 16, 3).astype(np.uint8))
    tensor = to_tensor(image)
    assert tensor.shape == (1, 3, 16, 16) and tensor.dtype == torch.float32
    assert tensor.min() == -1 and tensor.max() == 1
    assert tensor[0, 2, 0, 1].item() == pytest.approx(5 / 127.5 - 1)
    back = to_images(torch.cat([tensor, -tensor]))
    assert np.array_equal(np.asarray(back[0]), np.asarray(image))
    assert np.array_equal(np.asarray(back[1]), 255 - np.asarray(image))


def test_tensor_values_are_clipped_and_rounded() -> None:
    tensor = torch.tensor([-3.0, 3.0, 0.4 / 127.5 - 1, 0.6 / 127.5 - 1]).expand(1, 3, 1, 4)
    assert np.asarray(to_images(tensor)[0])[0, :, 0].tolist() == [0, 255, 0, 1]


def noise(mode: str, count: int) -> list[Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 24, 17, 4), np.uint8)
    return [Image.fromarray(p, "RGBA").convert(mode) for p in pixels]


def played(path: Path) -> tuple[list[Image.Image], list[int]]:
    frames, durations = [], []
    with Image.open(path) as file:
        assert file.info["loop"] == 0, "for ever"
        for frame in ImageSequence.Iterator(file):
            frames.append(frame.convert("RGBA"))
            durations.append(int(frame.info["duration"]))
    return frames, durations


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_webp_keeps_every_frame_as_it_is(tmp_path: Path, mode: str) -> None:
    frames = noise(mode, 5)
    save_animation(frames, tmp_path / "run.webp", 2.0)
    shown, durations = played(tmp_path / "run.webp")
    assert durations == [400] * 4 + [400 + round(1000 * HOLD)]
    for before, after in zip(frames, shown, strict=True):
        before_, after_ = np.asarray(before.convert("RGBA")), np.asarray(after)
        visible = before_[..., 3] > 0
        assert (before_[..., 3] == after_[..., 3]).all() and (before_[visible] == after_[visible]).all()


def test_one_frame_and_many_short_ones_can_be_written(tmp_path: Path) -> None:
    save_animation(noise("RGB", 1), tmp_path / "one.webp", 1.0)
    save_animation(noise("RGB", 30), tmp_path / "many.webp", 0.1)
    assert played(tmp_path / "many.webp")[1][:29] == [20] * 29
