"""Recipes in PNG files: they come back, change no pixel, and bad ones are refused."""

from __future__ import annotations

import json
import math
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from imagebart import InputError, SamplingSettings
from imagebart.imaging import files
from imagebart.imaging.files import Recipe, load_image, read_recipe, write_png

SETTINGS = SamplingSettings(temperature=0.9, top_k=5, top_p=0.8, guidance=4.0, resamples=2)
EDIT = Recipe(
    model="avatars",
    task="edit",
    prompt='a "ginger" beard — 赤い\n',
    seed=7,
    settings=SETTINGS,
    feather=3,
    context=0.5,
    variant=2,
)
RECIPES = [
    EDIT,
    Recipe(model="avatars", task="generate", prompt=None, seed=0),
    Recipe(model="tiny", task="vary", prompt="", seed=2**32 - 1, strength=0.3, variant=3),
]
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.task)
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_recipe_is_read_back_and_no_pixel_changes(tmp_path: Path, recipe: Recipe, mode: str) -> None:
    image = Image.fromarray(PIXELS, "RGBA").convert(mode)
    path = tmp_path / "out.png"
    write_png(image, path, recipe)
    assert read_recipe(path) == read_recipe(str(path)) == read_recipe(BytesIO(path.read_bytes())) == recipe
    assert recipe.own_seed == (recipe.seed + recipe.variant) % 2**32
    with Image.open(path) as opened:
        assert opened.mode == mode and (np.asarray(opened) == np.asarray(image)).all()


def test_the_chunk_is_plain_json_that_other_programs_can_read(tmp_path: Path) -> None:
    """Found by walking the file's chunks (PNG specification, section 5), not by the library that wrote it."""
    path = tmp_path / "out.png"
    write_png(Image.fromarray(PIXELS), path, EDIT)
    data, place, texts = path.read_bytes(), 8, {}
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        assert int.from_bytes(data[place + 8 + length : place + 12 + length], "big") == zlib.crc32(kind + body)
        if kind == b"tEXt":
            key, text = body.split(b"\0")
            texts[key] = json.loads(text)
        place += 12 + length
    assert list(texts) == [b"imagebart"]
    assert texts[b"imagebart"]["prompt"] == EDIT.prompt
    assert texts[b"imagebart"]["settings"]["guidance"] == 4.0


def test_a_colour_profile_stays_and_an_old_recipe_does_not(tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS)
    image.info["icc_profile"] = b"colours"
    write_png(image, tmp_path / "one.png", EDIT)
    again = load_image(tmp_path / "one.png")
    assert again.info == {"icc_profile": b"colours"}
    again.save(tmp_path / "two.png")
    assert read_recipe(tmp_path / "two.png") is None


def test_images_without_recipes_and_other_files_have_none(tmp_path: Path) -> None:
    plain, jpeg = BytesIO(), BytesIO()
    Image.fromarray(PIXELS).save(plain, "PNG")
    Image.fromarray(PIXELS).convert("RGB").save(jpeg, "JPEG", comment=EDIT.to_json())
    for source in (plain.getvalue(), plain.getvalue()[:40], jpeg.getvalue(), b"", b"no image"):
        assert read_recipe(BytesIO(source)) is None
    assert read_recipe(with_text("x" * 5_000_000)) is None  # Pillow stops at a megabyte of compressed text
    assert read_recipe(tmp_path / "missing.png") is None


def with_text(text: str) -> BytesIO:
    info, file = PngImagePlugin.PngInfo(), BytesIO()
    info.add_text("imagebart", text, zip=len(text) > 5000)
    Image.new("RGB", (20, 20)).save(file, "PNG", pnginfo=info)
    return file


def changed(**values: Any) -> str:
    return json.dumps({**json.loads(EDIT.to_json()), **values})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be used"),
        ("[" * 10_000, "cannot be used"),
        ("[1, 2]", "Recipe is"),
        ("{}", "'model' is missing"),
        (changed(extra=1), "unknown setting 'extra'"),
        (changed(task="delete"), "'edit', 'generate' or 'vary'"),
        (changed(seed=-1), "seed is -1"),
        (changed(seed=2**32), f"seed is {2**32}"),
        (changed(seed=1.5), "a whole number"),
        (changed(seed=True), "a whole number"),
        (changed(prompt=3), "a text"),
        (changed(prompt="x" * 20_001), "at most 20000 characters"),
        (changed(model="x" * 201), "at most 200 characters"),
        (changed(settings={"temperature": 0}), "temperature is 0"),
        (changed(settings={"temperature": 10**400}), "temperature is 1000"),
        (changed(settings={"evil": 1}), "settings.evil"),
        (changed(feather=10**9), "feather is 1000000000"),
        (changed(context=-1), "context is -1"),
        (changed(context=math.nan), "context is nan"),
        (changed(strength=0.5), "only a variation has one"),
        (changed(task="vary"), "only a variation has one"),
        (changed(task="vary", strength=2), "strength is 2"),
        (changed(variant=100), "variant is 100"),
        ("x" * 900_000, "cannot be used"),
    ],
    ids=lambda value: value[:30],
)
def test_bad_recipes_are_refused_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read_recipe(with_text(text))
    assert said in str(caught.value)
    assert len(str(caught.value)) < 300


def test_the_longest_prompt_of_any_characters_comes_back(tmp_path: Path) -> None:
    recipe = Recipe(model="tiny", task="generate", prompt="😀" * 20_000, seed=0)
    write_png(Image.new("RGB", (20, 20)), tmp_path / "out.png", recipe)
    assert read_recipe(tmp_path / "out.png") == recipe


def test_a_large_image_is_compressed_fast_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(PIXELS)
    monkeypatch.setattr(files, "LARGE", 100)
    write_png(image, tmp_path / "out.png", EDIT)
    with Image.open(tmp_path / "out.png") as opened:
        assert opened.tobytes() == image.tobytes()
    assert read_recipe(tmp_path / "out.png") == EDIT
    content = (tmp_path / "out.png").read_bytes()
    level = content[content.index(b"IDAT") + 5] >> 6  # RFC 1950: 0 is the fastest, 2 the default
    assert level == 0


def test_half_a_character_is_refused_by_its_name() -> None:
    """UTF-8 has no lone surrogates."""
    for model, prompt, name in (("\ud800", "a hat", "model"), ("m", "hat\udfff", "prompt")):
        with pytest.raises(InputError, match=f"{name} is .* unicode"):
            Recipe.parse(model=model, task="generate", prompt=prompt, seed=1, settings=SamplingSettings())
