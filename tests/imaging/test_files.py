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

from imagebart.errors import InputError
from imagebart.imaging.files import HOLD, MAX_SIDE, MIN_SIDE, flatten, load_image, save_animation, to_images, to_tensor


def colours(height: int = 24, width: int = 37, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG with a header and one byte of pixels: whoever decodes it fails."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"\0")]
    parts = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def refused(source: object, *words: str) -> str:
    with pytest.raises(InputError) as caught:
        load_image(source)
    sentence = str(caught.value)
    for word in words:
        assert word in sentence
    assert sentence.count(". ") == 0 and sentence.endswith(".") and "\n" not in sentence
    return sentence


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_rgb_is_exact_from_bytes_path_and_picture(kind: str, tmp_path: Path) -> None:
    pixels = colours()
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(Image.fromarray(pixels), kind, **options)
    path = tmp_path / "image.bin"
    path.write_bytes(data)
    for source in (data, path, str(path), Image.fromarray(pixels), Image.open(BytesIO(data))):
        image = load_image(source)
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), pixels)


def test_rgba_keeps_alpha_and_hidden_colours() -> None:
    pixels = colours(channels=4)
    pixels[:5, :, 3] = 0
    image = load_image(encoded(Image.fromarray(pixels)))
    assert image.mode == "RGBA"
    assert np.array_equal(np.asarray(image), pixels)


def test_grey_with_alpha() -> None:
    pixels = colours(channels=2)
    image = np.asarray(load_image(encoded(Image.fromarray(pixels, "LA"))))
    assert np.array_equal(image, pixels[..., [0, 0, 0, 1]])


def test_grey_and_one_bit() -> None:
    pixels = colours(channels=1)[..., 0]
    assert np.array_equal(np.asarray(load_image(encoded(Image.fromarray(pixels)))), pixels[..., None].repeat(3, 2))
    bits = pixels > 127
    image = np.asarray(load_image(encoded(Image.fromarray(bits))))
    assert np.array_equal(image, bits[..., None].repeat(3, 2) * np.uint8(255))


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
@pytest.mark.parametrize("transparent", [False, True])
def test_palette(kind: str, transparent: bool) -> None:
    palette = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)
    index = np.random.default_rng(2).integers(0, 256, (24, 37), dtype=np.uint8)
    index[0, 0] = 9
    source = Image.fromarray(index, "P")
    source.putpalette(palette.tobytes())
    options = {"transparency": 9} if transparent else {}
    image = load_image(encoded(source, kind, **options))
    assert image.mode == ("RGBA" if transparent else "RGB")
    shown = np.asarray(image)
    seen = index != 9 if transparent else np.ones_like(index, bool)
    assert np.array_equal(shown[..., :3][seen], palette[index][seen])
    if transparent:
        assert np.array_equal(shown[..., 3], np.where(index == 9, 0, 255))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey(kind: str) -> None:
    deep = np.random.default_rng(3).integers(0, 65536, (24, 37), dtype=np.uint16)
    deep[0, :3] = [0, 257 * 200, 65535]
    image = np.asarray(load_image(encoded(Image.fromarray(deep), kind)))
    expected = [[round(int(value) / 257) for value in row] for row in deep]
    for channel in range(3):
        assert np.array_equal(image[..., channel], expected)


def test_sixteen_bit_grey_with_a_transparent_value() -> None:
    deep = np.full((20, 20), 1000, np.uint16)
    deep[3, 4] = 40000
    image = load_image(encoded(Image.fromarray(deep), transparency=40000))
    assert image.mode == "RGBA"
    alpha = np.asarray(image)[..., 3]
    assert alpha[3, 4] == 0 and alpha.sum() == 255 * 399


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 128, 255], np.int32), [0, 128, 255]),
        (np.array([0, 25700, 65535], np.int32), [0, 100, 255]),
        (np.array([-100, 0, 155], np.int32), [0, 100, 255]),
        (np.array([0, 1 << 19, 1 << 20], np.int32), [0, 128, 255]),
        (np.array([0, 0.2, 1], np.float32), [0, 51, 255]),
        (np.array([0, 7, 254.6], np.float32), [0, 7, 255]),
        (np.array([np.nan, 500, 1000], np.float32), [0, 128, 255]),
        (np.array([0, 0, 0], np.float32), [0, 0, 0]),
        (np.array([-5, -5, -5], np.float32), [0, 0, 0]),
    ],
)
def test_integers_and_floats(values: np.ndarray, expected: list[int]) -> None:
    source = Image.fromarray(np.repeat(values[None], 20, 0).repeat(8, 1))
    image = np.asarray(load_image(encoded(source, "TIFF")))
    assert image[5, ::8, 1].tolist() == expected


def test_cmyk() -> None:
    inks = np.zeros((20, 40, 4), np.uint8)
    inks[:, :10, 0], inks[:, 10:20, 1], inks[:, 20:30, 2], inks[:, 30:, 3] = 255, 255, 255, 255
    image = np.asarray(load_image(encoded(Image.fromarray(inks, "CMYK"), "TIFF")))
    assert image[5, ::10].tolist() == [[0, 255, 255], [255, 0, 255], [255, 255, 0], [0, 0, 0]]
    jpeg = np.asarray(load_image(encoded(Image.fromarray(inks, "CMYK"), "JPEG", quality=100, subsampling=0)))
    assert np.abs(jpeg[5, 4::10].astype(int) - image[5, 4::10]).max() < 8


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
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation(orientation: int, kind: str) -> None:
    pixels = colours()
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    image = load_image(encoded(Image.fromarray(pixels), kind, exif=exif, **options))
    assert np.array_equal(np.asarray(image), ORIENTATIONS[orientation](pixels))
    assert np.array_equal(np.asarray(load_image(image)), np.asarray(image))  # not turned twice
    assert 0x0112 not in image.getexif()


def test_sixteen_bit_pictures_are_turned_too() -> None:
    deep = np.zeros((20, 30), np.uint16)
    deep[0, 0] = 65535
    exif = Image.Exif()
    exif[0x0112] = 6
    image = np.asarray(load_image(encoded(Image.fromarray(deep), exif=exif)))
    assert image.shape == (30, 20, 3) and image[0, 19, 0] == 255


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_metadata_does_not_hide_a_sound_picture() -> None:
    pixels = colours()
    image = load_image(encoded(Image.fromarray(pixels), exif=b"Exif\0\0MM\0*\0\0\xff\xff"))
    assert np.array_equal(np.asarray(image), pixels)


def test_a_grey_pictures_profile_is_dropped_as_its_pixels_become_colours() -> None:
    for mode in ("L", "LA", "I;16"):
        data = encoded(Image.new(mode, (20, 20)), icc_profile=b"profile")
        assert load_image(data).info == {}


@pytest.mark.parametrize("kind", ["EPS", "PPM", "ICO", "TGA", "PCX"])
def test_other_formats_are_not_even_tried(kind: str) -> None:
    refused(encoded(Image.new("RGB", (32, 32)), kind), "not an image we can read", "PNG, JPEG")


def test_metadata_is_dropped_except_the_colour_profile() -> None:
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    data = encoded(Image.fromarray(colours()), exif=exif, icc_profile=b"profile", dpi=(72, 72))
    image = load_image(data)
    assert image.info == {"icc_profile": b"profile"}
    assert b"where I live" not in encoded(image)


def test_phone_jpeg_with_a_preview_beside_it() -> None:
    first, second = Image.new("RGB", (64, 48), "red"), Image.new("RGB", (32, 24), "blue")
    image = load_image(encoded(first, "MPO", save_all=True, append_images=[second]))
    assert image.size == (64, 48)
    assert np.abs(np.asarray(image)[9, 9].astype(int) - (255, 0, 0)).max() < 5


def test_the_source_is_left_as_it_is() -> None:
    source = Image.fromarray(colours())
    source.info["dpi"] = (72, 72)
    load_image(source).putpixel((0, 0), (1, 2, 3))
    assert source.info == {"dpi": (72, 72)}
    assert np.array_equal(np.asarray(source), colours())


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animated(kind: str) -> None:
    frames = [Image.new("RGB", (30, 30), colour) for colour in ("red", "green", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    refused(data, "several pages" if kind == "TIFF" else "animated", "still PNG")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_anywhere(kind: str) -> None:
    data = encoded(Image.fromarray(colours(64, 64)), kind)
    for part in (0.02, 0.1, 0.5, 0.9):
        refused(data[: int(len(data) * part)], "file", "PNG, JPEG")


@pytest.mark.filterwarnings("ignore")  # Pillow's remarks on broken metadata
def test_damaged_bytes_never_escape_as_another_error() -> None:
    random = np.random.default_rng(11)
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        data = encoded(Image.fromarray(colours(32, 32)), kind)
        for _ in range(60):
            damaged = bytearray(data)
            for place in random.integers(0, min(len(data), 200), 4):
                damaged[place] = random.integers(256)
            with suppress(InputError):
                load_image(bytes(damaged))


def test_not_a_picture(tmp_path: Path) -> None:
    for data in (b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF-3.0\n"):
        refused(data, "not an image", "PNG, JPEG")
    refused(b"", "empty")
    refused(tmp_path / "absent.png", "absent.png")
    refused(tmp_path, "existing")
    refused(encoded(Image.fromarray(colours()), "PPM"), "not an image")


def test_no_pixels_or_too_few() -> None:
    refused(png_header(0, 0), "not an image")
    refused(Image.new("RGB", (0, 0)), "0 × 0", "16 × 16")
    refused(encoded(Image.new("RGB", (MIN_SIDE - 1, 400))), "15 × 400", "16 × 16")
    assert load_image(encoded(Image.new("RGB", (MIN_SIDE, MIN_SIDE)))).size == (MIN_SIDE, MIN_SIDE)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_large_is_judged_from_the_header() -> None:
    refused(png_header(50_000, 50_000), "megapixels", "at most 40")
    refused(png_header(10_000, 10_000), "10,000 × 10,000", "at most 40")
    refused(png_header(8_001, 5_000), "8,001 × 5,000", "at most 40")
    refused(png_header(MAX_SIDE + 1, 20), "30,001 × 20", "30,000")
    refused(png_header(8_000, 5_000), "damaged")  # small enough, so that its missing pixels were looked for


@pytest.mark.filterwarnings("error")
def test_bomb_warnings_as_errors_are_handled() -> None:
    refused(png_header(10_000, 10_000), "megapixels", "at most 40")


def tiled_tiff(tile: int) -> bytes:
    """100 x 100 pixels, black, in one tile of `tile` x `tile`; its zeros are packed a thousand times."""
    data = zlib.compress(bytes(min(3 * tile * tile, 1_000_000)))
    tags = [(256, 4, 100), (257, 4, 100), (258, 3, 8), (259, 3, 8), (262, 3, 2), (277, 3, 3)]
    tags += [(322, 4, tile), (323, 4, tile), (324, 4, 134), (325, 4, len(data))]
    fields = [struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags]
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(fields) + bytes(4) + data


def test_a_small_picture_in_huge_tiles_is_judged_from_the_header() -> None:
    assert load_image(tiled_tiff(112)).size == (100, 100)
    refused(tiled_tiff(16_000), "tiles of 16,000 × 16,000", "at most 40")  # 768 MB


def test_a_jpeg_of_endless_scans_is_refused_before_it_is_decoded() -> None:
    """Each is a few bytes, and goes over all of the image: a megabyte would take minutes."""
    file = BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, "JPEG", progressive=True)
    sound = file.getvalue()
    assert load_image(sound).size == (64, 64)
    begin = sound.rindex(b"\xff\xda")
    hostile = sound[:begin] + sound[begin:-2] * 100 + sound[-2:]
    with pytest.raises(InputError, match=r"a JPEG of 1\d\d scans, over 64"):
        load_image(hostile)
    with pytest.raises(InputError, match="scans"), Image.open(BytesIO(hostile)) as image:
        load_image(image)


@pytest.mark.parametrize("place", [0, 1, 2, 3, 4])
def test_scans_are_counted_to_one_wherever_they_begin(place: int) -> None:
    """The file is read in pieces of a megabyte; one scan begins `place` bytes before the end of the first."""
    file = BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, "JPEG", progressive=True)
    sound = file.getvalue()
    first, last = sound.index(b"\xff\xda"), sound.rindex(b"\xff\xda")
    padding, comments = 2**20 - place - first, b""
    while padding:  # comments of at most 65,537 bytes
        size = padding if padding <= 60_000 else min(60_000, padding - 4)
        comments += b"\xff\xfe" + (size - 2).to_bytes(2, "big") + bytes(size - 4)
        padding -= size

    def of(scans: int) -> bytes:
        more = scans - sound.count(b"\xff\xda")
        return sound[:2] + comments + sound[2:-2] + more * sound[last:-2] + sound[-2:]

    assert load_image(of(64)).size == (64, 64)
    with pytest.raises(InputError, match="65 scans, over 64"):
        load_image(of(65))


def test_tall_grey_pictures_are_scaled_as_one() -> None:
    values = np.linspace(-1000, 1000, 600, dtype=np.float32)
    image = np.asarray(load_image(Image.fromarray(np.repeat(values[:, None], 20, 1))))
    assert np.array_equal(image[:, 3, 2], np.rint((values + 1000) * (255 / 2000)).astype(np.uint8))


@pytest.mark.parametrize("source", [None, 3, ["a.png"], "a" * 5000, "a\0b", "", "."])
def test_what_is_no_source_is_said_in_a_sentence(source: object) -> None:
    assert len(refused(source)) < 300


def test_flatten_composites_on_the_background() -> None:
    pixels = colours(channels=4)
    got = np.asarray(flatten(Image.fromarray(pixels), (10, 200, 30))).astype(float)
    share = pixels[..., 3:].astype(float) / 255
    assert np.abs(got - (pixels[..., :3] * share + np.array([10, 200, 30]) * (1 - share))).max() <= 1
    opaque = Image.fromarray(colours())
    assert np.array_equal(np.asarray(flatten(opaque)), np.asarray(opaque))
    with pytest.raises(ValueError, match="'L'"):
        flatten(Image.new("L", (20, 20)))


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
    with pytest.raises(ValueError, match="3, H, W"):
        to_images(torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match="RGBA"):
        to_tensor(Image.new("RGBA", (20, 20)))


# Moving images, read back frame by frame.


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


def test_gif_keeps_order_and_colours(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (24, 17), colour) for colour in ("red", "lime", "blue")]
    frames.append(Image.new("RGBA", (24, 17), (0, 0, 0, 0)))  # shown on white
    save_animation(frames, tmp_path / "run.GIF", 0.4)
    shown, durations = played(tmp_path / "run.GIF")
    assert durations == [100, 100, 100, 100 + round(1000 * HOLD)]
    colours = [frame.getpixel((5, 5)) for frame in shown]
    assert colours == [(255, 0, 0, 255), (0, 255, 0, 255), (0, 0, 255, 255), (255, 255, 255, 255)]


def test_one_frame_and_many_short_ones_can_be_written(tmp_path: Path) -> None:
    save_animation(noise("RGB", 1), tmp_path / "one.webp", 1.0)
    save_animation(noise("RGB", 30), tmp_path / "many.webp", 0.1)
    assert played(tmp_path / "many.webp")[1][:29] == [20] * 29


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    frames = noise("RGB", 2)
    with pytest.raises(InputError, match=r"'run.mp4'.*\.webp or \.gif"):
        save_animation(frames, tmp_path / "run.mp4", 1.0)
    with pytest.raises(ValueError, match="no frames"):
        save_animation([], tmp_path / "run.webp", 1.0)
    with pytest.raises(ValueError, match=r"\(17, 24\), \(18, 24\)"):
        save_animation([frames[0], Image.new("RGB", (18, 24))], tmp_path / "run.webp", 1.0)
    with pytest.raises(ValueError, match="0 seconds"):
        save_animation(frames, tmp_path / "run.webp", 0)
    assert not list(tmp_path.iterdir())
