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
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence, PngImagePlugin

from imagebart import InputError, SamplingSettings
from imagebart.imaging import files
from imagebart.imaging.figures import CAPTION, LABEL, sheet
from imagebart.imaging.files import (
    FORMATS,
    HOLD,
    MAX_SIDE,
    MIN_SIDE,
    Recipe,
    flatten,
    load_image,
    read_recipe,
    save_animation,
    to_images,
    to_tensor,
    write_png,
)


def colors(height: int = 24, width: int = 37, channels: int = 3) -> np.ndarray:
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
    pixels = colors()
    data = encoded(Image.fromarray(pixels), kind, **({"lossless": True} if kind == "WEBP" else {}))
    path = tmp_path / "image.bin"
    path.write_bytes(data)
    for source in (data, path, str(path), Image.fromarray(pixels), Image.open(BytesIO(data))):
        image = load_image(source)
        assert image.mode == "RGB" and np.array_equal(np.asarray(image), pixels)


def test_alpha_gray_and_one_bit_are_exact() -> None:
    rgba, bits = colors(channels=4), colors(channels=1)[..., 0] > 127
    rgba[:5, :, 3] = 0  # hidden colors too
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


def test_sixteen_bit_gray() -> None:
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
def test_exif_orientation(orientation: int) -> None:
    exif, deep = Image.Exif(), colors()[..., 0].astype(np.uint16) * 257
    exif[0x0112] = orientation
    for pixels, source in ((colors(), Image.fromarray(colors())), (colors()[..., [0, 0, 0]], Image.fromarray(deep))):
        image = load_image(encoded(source, exif=exif))
        assert np.array_equal(np.asarray(image), ORIENTATIONS[orientation](pixels))
        assert np.array_equal(np.asarray(load_image(image)), np.asarray(image))  # not turned twice


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_metadata_does_not_hide_a_good_image() -> None:
    assert np.array_equal(loaded(Image.fromarray(colors()), exif=b"Exif\0\0MM\0*\0\0\xff\xff"), colors())


def test_metadata_is_dropped_except_the_color_profile() -> None:
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    image = load_image(encoded(Image.fromarray(colors()), exif=exif, icc_profile=b"profile", dpi=(72, 72)))
    assert image.info == {"icc_profile": b"profile"}
    assert b"where I live" not in encoded(image)
    for mode in ("L", "LA", "I;16"):  # a gray profile is wrong for colors
        assert load_image(encoded(Image.new(mode, (20, 20)), icc_profile=b"profile")).info == {}


def test_phone_jpeg_with_a_preview_beside_it() -> None:
    first, second = Image.new("RGB", (64, 48), "red"), Image.new("RGB", (32, 24), "blue")
    image = loaded(first, "MPO", save_all=True, append_images=[second])
    assert image.shape == (48, 64, 3)
    assert np.abs(image[9, 9].astype(int) - (255, 0, 0)).max() < 5


def test_the_source_is_left_as_it_is() -> None:
    source = Image.fromarray(colors())
    source.info["dpi"] = (72, 72)
    load_image(source).putpixel((0, 0), (1, 2, 3))
    assert source.info == {"dpi": (72, 72)}
    assert np.array_equal(np.asarray(source), colors())


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_animated(kind: str) -> None:
    frames = [Image.new("RGB", (30, 30), color) for color in ("red", "green", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    refused(data, "animated", "still PNG")


@pytest.mark.filterwarnings("ignore")  # Pillow's remarks on broken metadata
@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_or_damaged_anywhere(kind: str) -> None:
    """A damaged file is refused in a sentence, or is an image; where only its pixels changed, it is one."""
    random, data, read = np.random.default_rng(11), encoded(Image.fromarray(colors(64, 64)), kind), 0
    for part in (0.02, 0.1, 0.5, 0.9):
        refused(data[: int(len(data) * part)], "file")
    for _ in range(60):
        damaged = bytearray(data)
        for place in random.integers(0, min(len(data), 200), 4):
            damaged[place] = random.integers(256)
        try:
            read += load_image(bytes(damaged)).mode == "RGB"
        except InputError:
            refused(bytes(damaged))
    assert read if kind != "PNG" else not read, "a PNG has checksums"


NO_IMAGES: list[tuple[object, list[str]]] = [
    (b"hello", ["not an image we can read", "PNG, JPEG"]),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", ["not an image"]),
    *((encoded(Image.new("RGB", (32, 32)), kind), ["not an image"]) for kind in ("EPS", "PPM", "GIF", "BMP", "TIFF")),
    (b"", ["not an image"]),
    (Path("absent.png"), ["absent.png", "existing"]),
    (Path("."), ["existing"]),
    *((source, []) for source in (None, 3, ["a.png"], "a" * 5000, "a\0b", "")),
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


@pytest.mark.filterwarnings("error")
def test_bomb_warnings_as_errors_are_handled() -> None:
    refused(png_header(10_000, 10_000), "too many pixels", "at most 25")
    assert loaded(Image.new("RGB", (MIN_SIDE, MIN_SIDE))).shape == (MIN_SIDE, MIN_SIDE, 3)


def test_flatten_composites_on_white() -> None:
    pixels = colors(channels=4)
    got = np.asarray(flatten(Image.fromarray(pixels))).astype(float)
    share = pixels[..., 3:].astype(float) / 255
    assert np.abs(got - (pixels[..., :3] * share + 255 * (1 - share))).max() <= 1
    opaque = Image.fromarray(colors())
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


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_animation_keeps_every_frame_as_it_is(tmp_path: Path, mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 24, 17, 4), np.uint8)
    frames = [Image.fromarray(frame, "RGBA").convert(mode) for frame in pixels]
    for seconds, duration in ((2.0, 400), (0.05, 20)):
        save_animation(frames, tmp_path / "run.webp", seconds)
        with Image.open(tmp_path / "run.webp") as file:
            assert file.info["loop"] == 0, "for ever"
            shown = [(np.asarray(f.convert("RGBA")), round(f.info["duration"])) for f in ImageSequence.Iterator(file)]
        assert [each for _, each in shown] == [duration] * 4 + [duration + round(1000 * HOLD)]
        for before, (after, _) in zip(frames, shown, strict=True):
            expected = np.asarray(before.convert("RGBA"))
            visible = expected[..., 3] > 0
            assert (after[..., 3] == expected[..., 3]).all() and (after[visible] == expected[visible]).all()
    save_animation(frames[:1], tmp_path / "one.webp", 1.0)


# Recipes in PNG files.

EDIT = Recipe(
    model="avatars",
    task="edit",
    prompt='a "ginger" beard — 赤い\n',
    seed=7,
    settings=SamplingSettings(temperature=0.9, top_k=5, top_p=0.8, guidance=4.0, resamples=2),
    feather=3,
    context=0.5,
    variant=2,
)
PIXELS = Image.fromarray(colors(channels=4))


def with_text(text: str) -> BytesIO:
    info, file = PngImagePlugin.PngInfo(), BytesIO()
    info.add_text("imagebart", text, zip=len(text) > 5000)
    Image.new("RGB", (20, 20)).save(file, "PNG", pnginfo=info)
    return file


def changed(**values: Any) -> str:
    return json.dumps({**json.loads(EDIT.to_json()), **values})


@pytest.mark.parametrize(
    "recipe",
    [
        EDIT,
        Recipe(model="avatars", task="generate", prompt=None, seed=0),
        Recipe(model="tiny", task="vary", prompt="😀" * 20_000, seed=2**32 - 1, strength=0.3, variant=3),
    ],
    ids=lambda recipe: recipe.task,
)
@pytest.mark.parametrize("large", [False, True])
def test_a_recipe_is_read_back_and_no_pixel_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Recipe, large: bool
) -> None:
    if large:
        monkeypatch.setattr(files, "LARGE", 100)
    path = tmp_path / "out.png"
    for image in (PIXELS, PIXELS.convert("RGB")):
        write_png(image, path, recipe)
        content = path.read_bytes()
        assert read_recipe(path) == read_recipe(BytesIO(content)) == recipe
        assert recipe.own_seed == (recipe.seed + recipe.variant) % 2**32
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(image))
        level = content[content.index(b"IDAT") + 5] >> 6  # RFC 1950: 0 is the fastest, 2 the default
        assert level == (0 if large else 2)


def test_the_recipe_is_plain_json_that_other_programs_can_read(tmp_path: Path) -> None:
    """Found by walking the file's chunks (PNG specification, section 5), not by the library that wrote it."""
    write_png(PIXELS, tmp_path / "out.png", EDIT)
    data, place, texts = (tmp_path / "out.png").read_bytes(), 8, {}
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] == b"tEXt":
            key, text = data[place + 8 : place + 8 + length].split(b"\0")
            texts[key] = json.loads(text)
        place += 12 + length
    assert list(texts) == [b"imagebart"]
    assert texts[b"imagebart"]["prompt"] == EDIT.prompt and texts[b"imagebart"]["settings"]["guidance"] == 4.0


def test_a_color_profile_stays_and_the_recipe_of_an_image_before_does_not(tmp_path: Path) -> None:
    image = PIXELS.copy()
    image.info["icc_profile"] = b"profile"
    write_png(image, tmp_path / "one.png", EDIT)
    again = load_image(tmp_path / "one.png")
    assert again.info == {"icc_profile": b"profile"}
    again.save(tmp_path / "two.png")
    assert read_recipe(tmp_path / "two.png") is None


def test_images_without_recipes_and_other_files_have_none(tmp_path: Path) -> None:
    plain, jpeg = encoded(PIXELS), encoded(PIXELS.convert("RGB"), "JPEG", comment=EDIT.to_json())
    for source in (plain, plain[:40], jpeg, b"", b"no image"):
        assert read_recipe(BytesIO(source)) is None
    assert read_recipe(with_text("x" * 5_000_000)) is None  # Pillow stops at a megabyte of compressed text
    assert read_recipe(tmp_path / "missing.png") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 10_000, "The image's recipe cannot be used"),
        ("{}", "'model' is missing"),
        (changed(extra=1), "unknown setting 'extra'"),
        (changed(settings={"temperature": 10**400}), "settings.temperature is 1000"),
        (changed(prompt="x" * 20_001), "at most 20000 characters"),
        (changed(strength=0.5), "The strength is 0.5 in a recipe to edit; only a variation has one."),
        (changed(task="vary"), "only a variation has one"),
        (changed(context=float("nan")), "context is nan"),
        ("x" * 900_000, "cannot be used"),
    ],
    ids=lambda value: value[:30],
)
def test_bad_recipes_are_refused_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read_recipe(with_text(text))
    assert said in str(caught.value) and len(str(caught.value)) < 300


@given(
    name=st.sampled_from([*Recipe.model_fields]),
    value=st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.lists(st.integers(), max_size=2),
)
@settings(deadline=None, max_examples=60)
def test_any_value_of_a_recipe_is_kept_as_it_is_or_refused_by_its_name(name: str, value: Any) -> None:
    given = {**dict(EDIT), name: value}
    try:
        recipe = Recipe.parse(**given)
    except InputError as error:
        assert name in str(error) and str(error).count("\n") == 0 and len(str(error)) < 300
    else:
        assert Recipe.from_json(recipe.to_json()) == recipe and getattr(recipe, name) == value


# Contact sheets, measured by their pixels.


def test_images_stand_in_rows_with_names_and_captions() -> None:
    row = [Image.new("RGB", (20, 20), color) for color in ("red", "lime", "blue")]
    page = np.asarray(
        sheet([row, [Image.new("RGB", (10, 10), "red")]], 20, names=("one", "two"), captions=(("a",), ("x",)))
    )
    assert page.shape == (2 * (24 + CAPTION), LABEL + 3 * 24, 3)
    for i, color in enumerate(np.eye(3, dtype=int) * 255):
        left = LABEL + 24 * i
        assert (page[2:22, left + 2 : left + 22] == color).all() and (page[2:22, left : left + 2] == 255).all()
    second = page[24 + CAPTION :, LABEL:]
    assert (second[2:22, 2:22] == (255, 0, 0)).all(), "enlarged"
    assert (second[:24, 24:] == 255).all(), "no more images there"
    assert (page[:24, :LABEL] != 255).any() and (page[23 : 24 + CAPTION - 1, LABEL:] != 255).any()
    assert sheet([row], 20, margin=1).size == (66, 22), "without words there is no room for them"


def test_fewer_captions_than_images_stand_under_as_many_each_and_long_ones_are_smaller() -> None:
    row = [Image.new("RGB", (20, 20), "white")] * 4
    for captions in (("l", "l"), ("a long caption", "l")):
        page = np.asarray(sheet([row], 20, margin=2, captions=(captions,)))
        marked = np.flatnonzero((page < 255).any((0, 2)))
        assert {int(column) // 48 for column in marked} == {0, 1}
        assert not set(range(46, 50)) & set(marked.tolist())
