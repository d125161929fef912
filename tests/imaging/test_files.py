"""Image files: read safely, written whole with their recipe, to tensors and back; animations and contact sheets."""

import json
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence, PngImagePlugin

from imagebart import InputError, SamplingSettings
from imagebart.imaging import files
from imagebart.imaging.figures import CAPTION, LABEL, sheet
from imagebart.imaging.files import FORMATS, HOLD, MAX_SIDE, MIN_SIDE, Recipe, load_image, read_recipe, write_png

COLORS = np.random.default_rng(7).integers(0, 256, (24, 37, 4), dtype=np.uint8)
COLORS[:5, :, 3] = 0  # hidden colors
OPAQUE = Image.fromarray(COLORS[..., :3].copy())
GRAY = COLORS[..., [0, 0, 0]]


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


def refused(source: object, said: str) -> None:
    with pytest.raises(InputError) as caught:
        load_image(source)
    assert said in str(caught.value) and str(caught.value).endswith(".") and len(str(caught.value)) < 300


def test_pixels_are_exact_from_bytes_path_and_image(tmp_path: Path) -> None:
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        data, path = encoded(OPAQUE, kind, **options), tmp_path / "image.bin"
        path.write_bytes(data)
        for source in (data, path, str(path), OPAQUE, Image.open(BytesIO(data))):
            image = load_image(source)
            assert image.mode == "RGB" and np.array_equal(np.asarray(image), OPAQUE)
    load_image(OPAQUE).putpixel((0, 0), (1, 2, 3))
    assert np.array_equal(np.asarray(OPAQUE), COLORS[..., :3]), "the source is left as it is"


def test_other_modes_are_as_people_see_them() -> None:
    deep = np.random.default_rng(3).integers(0, 65536, (24, 37), dtype=np.uint16)
    palette = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)
    indexed = Image.fromarray(COLORS[..., 0].copy(), "P")
    indexed.putpalette(palette.tobytes())
    seen = palette[COLORS[..., 0]]
    opacity = np.where(COLORS[..., :1] == 9, np.uint8(0), np.uint8(255))
    for image, options, expected in (
        (Image.fromarray(COLORS), {}, COLORS),
        (Image.fromarray(COLORS[..., 2:].copy(), "LA"), {}, COLORS[..., [2, 2, 2, 3]]),
        (Image.fromarray(COLORS[..., 0].copy()), {}, GRAY),
        (Image.fromarray(COLORS[..., 0] > 127), {}, (GRAY > 127) * 255),
        (Image.fromarray(deep), {}, np.rint(deep[..., None].repeat(3, 2) / 257)),
        (indexed, {}, seen),
        (indexed, {"transparency": 9}, np.concatenate([seen, opacity], 2)),
    ):
        assert np.array_equal(loaded(image, **options), expected)
    inks = np.eye(4, dtype=np.uint8).repeat(10, 0)[None].repeat(20, 0) * 255
    printed = loaded(Image.fromarray(inks, "CMYK"), "JPEG", quality=100, subsampling=0)[5, 4::10]
    assert np.abs(printed.astype(int) - [[0, 255, 255], [255, 0, 255], [255, 255, 0], [0, 0, 0]]).max() < 8


@pytest.mark.parametrize(
    ("orientation", "rows", "columns"),
    [(1, 1, 1), (2, 1, -1), (3, -1, -1), (4, -1, 1), (5, 1, 1), (6, -1, 1), (7, -1, -1), (8, 1, -1)],
)
def test_exif_orientation(orientation: int, rows: int, columns: int) -> None:
    """The EXIF standard's table: which directions are turned; from 5 on, stored rows are columns."""
    exif, deep = Image.Exif(), Image.fromarray(COLORS[..., 0].astype(np.uint16) * 257)
    exif[0x0112] = orientation
    for source, stored in ((OPAQUE, COLORS[..., :3]), (deep, GRAY)):
        upright = stored[::rows, ::columns]
        image = load_image(encoded(source, exif=exif))
        assert np.array_equal(np.asarray(image), upright if orientation < 5 else upright.transpose(1, 0, 2))
        assert np.array_equal(np.asarray(load_image(image)), np.asarray(image))  # not turned twice


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_of_the_metadata_only_a_color_profile_is_kept() -> None:
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    image = load_image(encoded(OPAQUE, exif=exif, icc_profile=b"profile", dpi=(72, 72)))
    assert image.info == {"icc_profile": b"profile"} and b"where I live" not in encoded(image)
    for mode in ("L", "LA", "I;16"):  # a gray profile is wrong for colors
        assert load_image(encoded(Image.new(mode, (20, 20)), icc_profile=b"profile")).info == {}
    assert np.array_equal(loaded(OPAQUE, exif=b"Exif\0\0MM\0*\0\0\xff\xff"), OPAQUE), "broken metadata"


def test_an_animation_is_refused_and_a_phones_preview_beside_its_photo_is_not() -> None:
    first, second = Image.new("RGB", (64, 48), "red"), Image.new("RGB", (32, 24), "blue")
    for kind in ("WEBP", "PNG"):
        refused(encoded(first, kind, save_all=True, append_images=[second.resize(first.size)]), "is animated; save the")
    photo = loaded(first, "MPO", save_all=True, append_images=[second])
    assert photo.shape == (48, 64, 3) and np.abs(photo[9, 9].astype(int) - (255, 0, 0)).max() < 5


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_is_cut_short_is_refused(kind: str) -> None:
    data = encoded(OPAQUE.resize((64, 64)), kind)
    for part in (0.02, 0.1, 0.5, 0.9):
        refused(data[: int(len(data) * part)], "file")


WRITTEN_BY_OTHERS = [encoded(OPAQUE, kind) for kind in ("EPS", "GIF", "TIFF")]
NO_IMAGES: list[tuple[object, str]] = [
    *((data, "not an image we can read; choose a PNG, JPEG") for data in (b"", b"<svg xmlns=''/>", *WRITTEN_BY_OTHERS)),
    *((path, "There is no image file") for path in (Path("absent.png"), ".", "a" * 5000, "a\0b")),
    (None, "The image is None; give a PNG, JPEG or WebP file or an opened image."),
    (encoded(Image.new("RGB", (MIN_SIDE - 1, 400))), "The image is 15 × 400 pixels; at least 16 × 16 are needed."),
    (png_header(50_000, 50_000), "The image has too many pixels; make it smaller, at most 25 megapixels and 30,000"),
    (png_header(10_000, 10_000), "too many pixels"),  # of which Pillow only warns
    (png_header(5_001, 5_000), "5,001 × 5,000 pixels; make it smaller"),
    (png_header(MAX_SIDE + 1, 20), "30,001 × 20 pixels; make it smaller"),
    (png_header(5_000, 5_000), "damaged"),  # small enough, so that its missing pixels were looked for
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("source", "said"), NO_IMAGES, ids=range(len(NO_IMAGES)))
def test_what_cannot_be_read_is_said_in_a_sentence(source: object, said: str) -> None:
    refused(source, said)


def test_the_smallest_image_is_read_and_the_largest_file_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loaded(Image.new("RGB", (MIN_SIDE, MIN_SIDE))).shape == (MIN_SIDE, MIN_SIDE, 3)
    monkeypatch.setattr(files, "MAX_BYTES", 100)
    refused(encoded(OPAQUE), "bytes; it may have 100")


def test_transparency_is_flattened_on_white() -> None:
    flat, share = np.asarray(files.flatten(Image.fromarray(COLORS))).astype(float), COLORS[..., 3:] / 255
    assert np.abs(flat - (COLORS[..., :3] * share + 255 * (1 - share))).max() <= 1
    assert np.array_equal(np.asarray(files.flatten(OPAQUE)), np.asarray(OPAQUE))


def test_tensors_are_from_minus_one_to_one_and_come_back_clipped_and_rounded() -> None:
    image = Image.fromarray(np.arange(768).reshape(16, 16, 3).astype(np.uint8))
    tensor = files.to_tensor(image)
    assert tensor.shape == (1, 3, 16, 16) and tensor.dtype == torch.float32
    assert (tensor.min(), tensor.max()) == (-1, 1) and tensor[0, 2, 0, 1].item() == pytest.approx(5 / 127.5 - 1)
    same, inverted = files.to_images(torch.cat([tensor, -tensor]))
    assert np.array_equal(same, image) and np.array_equal(inverted, 255 - np.asarray(image))
    odd = torch.tensor([-3.0, 3.0, 0.4 / 127.5 - 1, 0.6 / 127.5 - 1]).expand(1, 3, 1, 4)
    assert np.asarray(files.to_images(odd)[0])[0, :, 0].tolist() == [0, 255, 0, 1]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_animation_keeps_every_frame_as_it_is(tmp_path: Path, mode: str) -> None:
    frames = [Image.fromarray(np.roll(COLORS, shift, 1)).convert(mode) for shift in range(5)]
    for seconds, duration in ((2.0, 400), (0.05, 20)):
        files.save_animation(frames, tmp_path / "run.webp", seconds)
        with Image.open(tmp_path / "run.webp") as file:
            assert file.info["loop"] == 0, "for ever"
            shown = [(np.asarray(f.convert("RGBA")), round(f.info["duration"])) for f in ImageSequence.Iterator(file)]
        assert [each for _, each in shown] == [duration] * 4 + [duration + round(1000 * HOLD)]
        for before, (after, _) in zip(frames, shown, strict=True):
            expected = np.asarray(before.convert("RGBA"))
            visible = expected[..., 3] > 0
            assert (after[..., 3] == expected[..., 3]).all() and (after[visible] == expected[visible]).all()
    files.save_animation(frames[:1], tmp_path / "one.webp", 1.0)


SETTINGS = SamplingSettings(temperature=0.9, top_k=5, top_p=0.8, guidance=4.0, resamples=2)
EDIT = Recipe(
    model="avatars", task="edit", prompt='a "ginger" beard — 赤い\n', seed=7, settings=SETTINGS, feather=3, variant=2
)
RECIPES = [
    EDIT.replace(context=0.5),
    Recipe(model="avatars", task="generate", prompt=None, seed=0),
    Recipe(model="tiny", task="vary", prompt="😀" * 20_000, seed=2**32 - 1, strength=0.3, variant=3),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.task)
@pytest.mark.parametrize("large", [False, True])
def test_a_recipe_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Recipe, large: bool) -> None:
    if large:
        monkeypatch.setattr(files, "LARGE", 100)
    path = tmp_path / "out.png"
    for image in (Image.fromarray(COLORS), OPAQUE):
        write_png(image, path, recipe)
        content = path.read_bytes()
        assert read_recipe(path) == read_recipe(BytesIO(content)) == recipe
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(image))
        level = content[content.index(b"IDAT") + 5] >> 6  # RFC 1950: 0 is the fastest, 2 the default
        assert level == (0 if large else 2)


def test_the_recipe_is_plain_json_that_other_programs_can_read(tmp_path: Path) -> None:
    """Found by the PNG specification, section 5, not by the library that wrote it."""
    write_png(OPAQUE, tmp_path / "out.png", EDIT)
    data = (tmp_path / "out.png").read_bytes()
    start = data.index(b"tEXtimagebart\0")
    text = data[start + 14 : start + 4 + int.from_bytes(data[start - 4 : start], "big")]
    assert json.loads(text)["prompt"] == EDIT.prompt and json.loads(text)["settings"]["guidance"] == 4.0


def with_text(text: str) -> BytesIO:
    info = PngImagePlugin.PngInfo()
    info.add_text("imagebart", text, zip=len(text) > 5000)
    return BytesIO(encoded(OPAQUE, pnginfo=info))


def test_images_without_recipes_and_other_files_have_none(tmp_path: Path) -> None:
    jpeg = encoded(OPAQUE, "JPEG", comment=EDIT.to_json())
    again = encoded(load_image(with_text(EDIT.to_json()).getvalue()))
    for source in (encoded(OPAQUE), encoded(OPAQUE)[:40], jpeg, again, b"", b"no image"):
        assert read_recipe(BytesIO(source)) is None
    assert read_recipe(with_text("x" * 5_000_000)) is None  # Pillow stops at a megabyte of compressed text
    assert read_recipe(tmp_path / "missing.png") is None


def changed(**values: Any) -> str:
    return json.dumps({**json.loads(EDIT.to_json()), **values})


def test_a_bad_recipe_is_refused_in_one_sentence() -> None:
    for text, said in (
        ("[" * 10_000, "The image's recipe cannot be used"),
        (changed(strength=0.5), "The strength is 0.5 in a recipe to edit; only a variation has one."),
        (changed(task="vary"), "only a variation has one"),
    ):
        with pytest.raises(InputError) as caught:
            read_recipe(with_text(text))
        assert said in str(caught.value) and len(str(caught.value)) < 300


def test_images_stand_in_rows_with_names_and_captions() -> None:
    colors = ("red", "lime", "blue", "black")
    row, small = [Image.new("RGB", (20, 20), color) for color in colors], Image.new("RGB", (10, 10))
    page = np.asarray(sheet([row, [small]], 20, names=("one", "two"), captions=(("a long caption", "l"), ("x",))))
    assert page.shape == (2 * (24 + CAPTION), LABEL + 4 * 24, 3)
    for left, color in zip(range(LABEL, page.shape[1], 24), np.eye(4)[:, :3] * 255, strict=True):
        assert (page[2:22, left + 2 : left + 22] == color).all() and (page[2:22, left : left + 2] == 255).all()
    second = page[24 + CAPTION :, LABEL:]
    assert (second[2:22, 2:22] == 0).all(), "enlarged"
    assert (second[:24, 24:] == 255).all(), "no more images there"
    assert (page[:24, :LABEL] != 255).any()
    marked = np.flatnonzero((page[24 : 24 + CAPTION, LABEL:] < 255).any((0, 2))).tolist()
    assert {column // 48 for column in marked} == {0, 1}, "a caption for two images each"
    assert not {*range(46, 50)} & {*marked}, "a long one is smaller"
    assert sheet([row], 20, margin=1).size == (88, 22), "without words there is no room for them"
