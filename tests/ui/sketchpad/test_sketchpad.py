"""The sketchpad's scripts: their own tests in node, and the same masks, and masks as text, as in Python."""

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
from imagebart.imaging.masks import PRESETS, preset
from imagebart.ui.files import pack_mask, unpack_mask
from imagebart.ui.page import scripts

HERE = Path(__file__).parent
SOURCES = HERE.parents[2] / "imagebart" / "ui" / "sketchpad"
NODE = Path(playwright.__file__).parent / "driver" / "node"  # Playwright's own, so that no machine lacks it


def in_node(*arguments: str, text: str = "") -> str:
    done = subprocess.run([str(NODE), *arguments], input=text, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def evaluate(expression: str, value: object) -> object:
    """An expression over the names of mask.js and `value`, as JSON."""
    program = (
        f"import * as m from {json.dumps((SOURCES / 'mask.js').as_uri())};"
        f"const value = {json.dumps(value)}; console.log(JSON.stringify({expression}));"
    )
    return json.loads(in_node("--input-type=module", text=program))


def pixels(mask: Image.Image) -> list[int]:
    return np.asarray(mask).ravel().tolist()


def test_the_modules_pass_their_own_tests() -> None:
    in_node("--test", *map(str, HERE.glob("*.test.mjs")))


def test_all_modules_together_are_one_script_each_after_what_it_needs() -> None:
    script = "\n".join(scripts().values())
    in_node("--check", "-", text=f"function load(element, props) {{ {script} }}")
    assert "import {" not in script and "export " not in script
    names = list(scripts())
    assert {path.stem for path in SOURCES.glob("*.js")} == set(names)
    for place, name in enumerate(names):
        needed = re.findall(r'from "\./([\w-]+)\.js"', (SOURCES / f"{name}.js").read_text(encoding="utf-8"))
        assert set(needed) <= set(names[:place]), name


def speckled(size: tuple[int, int], share: float = 0.05) -> Image.Image:
    chance = np.random.default_rng(size[0])
    values = chance.integers(1, 256, size[::-1]) * (chance.random(size[::-1]) < share)
    return Image.fromarray(values.astype(np.uint8))


def test_a_mask_comes_back_as_it_was_and_both_sides_pack_it_alike() -> None:
    for mask in (speckled((33, 20)), speckled((33, 20), 0.9), preset("border", (29, 13)), Image.new("L", (29, 13))):
        value = {"width": mask.width, "height": mask.height, "data": pixels(mask)}
        assert evaluate("m.pack(value)", value) == pack_mask(mask)
        assert unpack_mask(pack_mask(mask), mask.size).tobytes() == mask.tobytes()
    assert pack_mask(Image.new("L", (1024, 1024))) == ""
    assert pack_mask(Image.new("L", (1024, 1024), 255)) == f"255 {1024 * 1024}"


OVERFLOWING = f"0 {2**62} 0 {2**62} 0 {2**62} 0 {2**62 + 12}"


def test_what_is_no_mask_of_this_size_is_refused() -> None:
    for text in ("255", "255 11", "256 12", "-1 12", "a b", "1.5 12", "0 0 0 12", OVERFLOWING, "9" * 40):
        with pytest.raises(InputError, match="reload the page"):
            unpack_mask(text, (4, 3))


@pytest.mark.parametrize("size", [(40, 31), (7, 90)])
def test_preset_masks_are_those_of_the_library(size: tuple[int, int]) -> None:
    names = re.findall(r'data-preset="([^"]+)"', (SOURCES / "template.html").read_text(encoding="utf-8"))
    assert names == list(PRESETS)
    value = {"names": names, "size": {"width": size[0], "height": size[1]}}
    made = evaluate("value.names.map((name) => [...m.preset(name, value.size).data])", value)
    assert made == [pixels(preset(name, size)) for name in names]


def grow(mask: Image.Image, radius: int) -> np.ndarray:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return cv2.dilate(np.array(mask), (x * x + y * y <= radius * radius).astype(np.uint8))


def test_masks_are_inverted_grown_and_shrunk_as_by_the_library() -> None:
    mask = speckled((90, 61))
    value = {"width": 90, "height": 61, "data": pixels(mask), "names": ["invert", "grow", "shrink"]}
    painted = "{ ...value, data: Uint8Array.from(value.data) }"
    made = evaluate(f"value.names.map((name) => [...m.MASK_COMMANDS[name]({painted}).data])", value)
    inverted = ImageChops.invert(mask)
    assert made == [*map(pixels, (inverted, grow(mask, 3), 255 - grow(inverted, 3)))], "by 90 / 32, rounded"
    in_steps = grow(Image.fromarray(grow(mask, 6)), 5)  # wide discs are built of smaller ones
    assert evaluate(f"[...m.grow({painted}, 11).data]", value) == pixels(in_steps)
