"""The sketchpad's masks as text, and its scripts: their own tests in node, and the same masks as in Python."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import cv2
import numpy as np
import playwright
import pytest
from PIL import Image, ImageChops

from imagebart.core.errors import InputError
from imagebart.imaging import masks
from imagebart.imaging.masks import preset
from imagebart.ui.files import pack_mask, unpack_mask
from imagebart.ui.page import scripts


def test_a_mask_comes_back_as_it_was() -> None:
    soft = Image.fromarray(np.random.default_rng(0).integers(0, 256, (13, 29), np.uint8))
    for mask in (soft, preset("border", (29, 13)), preset("everything", (29, 13)), Image.new("L", (29, 13))):
        assert unpack_mask(pack_mask(mask), (29, 13)).tobytes() == mask.tobytes()


def test_an_empty_mask_is_no_text_and_a_full_one_is_short() -> None:
    assert pack_mask(Image.new("L", (1024, 1024))) == ""
    assert pack_mask(Image.new("L", (1024, 1024), 255)) == f"255 {1024 * 1024}"


OVERFLOWING = f"0 {2**62} 0 {2**62} 0 {2**62} 0 {2**62 + 12}"


@pytest.mark.parametrize(
    "text", ["255", "255 11", "256 12", "-1 12", "a b", "1.5 12", "0 0 0 12", OVERFLOWING, "9" * 40]
)
def test_what_is_no_mask_of_this_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="reload the page"):
        unpack_mask(text, (4, 3))


HERE = Path(__file__).parent
SOURCES = HERE.parents[2] / "imagebart" / "ui" / "sketchpad"
NODE = Path(playwright.__file__).parent / "driver" / "node"  # Playwright's own, so that no machine lacks it


def in_node(*arguments: str, text: str = "") -> str:
    done = subprocess.run([str(NODE), *arguments], input=text, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def evaluate(module: str, expression: str, value: object) -> object:
    """An expression over a module's names and `value`, as JSON."""
    program = (
        f"import * as m from {json.dumps((SOURCES / module).as_uri())};"
        f"const value = {json.dumps(value)}; console.log(JSON.stringify({expression}));"
    )
    return json.loads(in_node("--input-type=module", text=program))


def test_the_modules_pass_their_own_tests() -> None:
    in_node("--test", *map(str, HERE.glob("*.test.mjs")))


def test_all_modules_together_are_one_script() -> None:
    script = "\n".join(scripts().values())
    in_node("--check", "-", text=f"function load(element, props) {{ {script} }}")
    assert "import {" not in script and "export " not in script


def test_every_module_comes_after_what_it_needs() -> None:
    names = list(scripts())
    assert {path.stem for path in SOURCES.glob("*.js")} == set(names)
    for place, name in enumerate(names):
        needed = re.findall(r'from "\./([\w-]+)\.js"', (SOURCES / f"{name}.js").read_text(encoding="utf-8"))
        assert set(needed) <= set(names[:place]), name


def speckled(size: tuple[int, int], share: float = 0.05) -> Image.Image:
    chance = np.random.default_rng(size[0])
    values = chance.integers(1, 256, size[::-1]) * (chance.random(size[::-1]) < share)
    return Image.fromarray(values.astype(np.uint8))


@pytest.mark.parametrize("size", [(40, 31), (7, 90)])
def test_preset_masks_are_those_of_the_library(size: tuple[int, int]) -> None:
    names = re.findall(r'data-preset="([^"]+)"', (SOURCES / "template.html").read_text(encoding="utf-8"))
    assert names == list(masks.PRESETS)
    made = evaluate(
        "mask.js", f"value.map((name) => [...m.preset(name, {{ width: {size[0]}, height: {size[1]} }}).data])", names
    )
    assert made == [np.asarray(masks.preset(name, size)).ravel().tolist() for name in names]


def grow(mask: Image.Image, pixels: int) -> np.ndarray:
    """An "L" mask widened by `pixels` in every direction; discs over 6 are built of smaller ones."""
    values = np.array(mask)
    for done in range(0, pixels, 6):
        radius = min(6, pixels - done)
        y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
        values = cv2.dilate(values, (x * x + y * y <= radius * radius).astype(np.uint8))
    return values


def test_masks_are_inverted_grown_and_shrunk_as_by_the_library() -> None:
    mask = speckled((90, 61))
    program = (
        "['invert', 'grow', 'shrink'].map((name) =>"
        " [...m.MASK_COMMANDS[name]({ ...value, data: Uint8Array.from(value.data) }).data])"
    )
    value = {"width": 90, "height": 61, "data": np.asarray(mask).ravel().tolist()}
    inverted = ImageChops.invert(mask)
    wanted = [inverted, grow(mask, 3), 255 - grow(inverted, 3)]  # 90 / 32, rounded
    assert evaluate("mask.js", program, value) == [np.asarray(made).ravel().tolist() for made in wanted]
    large = evaluate("mask.js", "[...m.grow({ ...value, data: Uint8Array.from(value.data) }, 11).data]", value)
    assert large == np.asarray(grow(mask, 11)).ravel().tolist()


def test_both_sides_pack_a_mask_alike() -> None:
    for share in (0, 0.05, 0.9):
        mask = speckled((33, 20), share)
        value = {"width": 33, "height": 20, "data": np.asarray(mask).ravel().tolist()}
        assert evaluate("mask.js", "m.pack(value)", value) == pack_mask(mask)
        assert unpack_mask(pack_mask(mask), (33, 20)).tobytes() == mask.tobytes()
