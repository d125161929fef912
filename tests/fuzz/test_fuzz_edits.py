"""Odd masks and prompts: what is not painted stays, of every mode, and any text is read."""

from __future__ import annotations

from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from effort import Effort, any_text
from PIL import Image
from tiny_models import tiny_pipeline

from imagebart.errors import InputError
from imagebart.pipeline import Pipeline
from imagebart.settings import SamplingSettings

QUICK = SamplingSettings(scales=1)


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return tiny_pipeline()


def painting(size: tuple[int, int], chance: Random) -> npt.NDArray[np.bool_]:
    """Where is painted, [H, W]: nowhere, everywhere, one pixel, strokes, noise, a chequered ground."""
    width, height = size
    painted = np.zeros((height, width), bool)
    kind = chance.randrange(6)
    if kind == 1:
        painted[:] = True
    elif kind == 2:
        painted[chance.randrange(height), chance.randrange(width)] = True
    elif kind == 3:
        for _ in range(4):
            painted[chance.randrange(height), chance.randrange(width) :] = True
    elif kind == 4:
        painted[:] = np.random.default_rng(chance.randrange(2**32)).random((height, width)) < chance.random()
    elif kind == 5:
        painted[::2, 1::2] = True
    return painted


def in_mode(painted: npt.NDArray[np.bool_], mode: str) -> Image.Image:
    """The mask as a picture of a mode, white or opaque where is painted."""
    white = painted.astype(np.uint8) * 255
    if mode == "I;16":
        return Image.fromarray(white.astype(np.uint16) * 257)
    if mode in ("I", "F"):
        return Image.fromarray(white.astype({"I": np.int32, "F": np.float32}[mode]))
    if mode == "opaque RGBA":
        return Image.fromarray(white).convert("RGBA")
    if mode == "clear RGBA":
        ink = 255 * painted.all()  # what is opaque everywhere is a grey picture: only its white is painted
        return Image.fromarray(np.dstack([np.full((*white.shape, 3), ink, np.uint8), white]))
    return Image.fromarray(white).convert(mode)


MODES = ("L", "1", "P", "LA", "RGB", "CMYK", "I;16", "I", "F", "opaque RGBA", "clear RGBA")


def test_what_is_not_painted_stays(effort: Effort, pipe: Pipeline) -> None:
    for case, chance in effort.cases(11, 660):
        size = chance.choice([(32, 32), (37, 50), (16, 90), (120, 20), (70, 64)])
        painted, mode = painting(size, chance), chance.choice(MODES)
        pixels = np.random.default_rng(chance.randrange(2**32)).integers(0, 256, (size[1], size[0], 4), np.uint8)
        image = Image.fromarray(pixels).convert(chance.choice(["RGB", "RGBA"]))
        feather, context = chance.choice([0, 0, 1, 7, 1000]), chance.choice([0.0, 0.5, 1e308, float("inf")])
        try:
            *_, last = pipe.edit(
                image, in_mode(painted, mode), "a hat", settings=QUICK, feather=feather, context=context
            )
        except InputError as error:
            assert not painted.any() and "Nothing is painted" in str(error), (case, mode, error)
            continue
        changed = (np.asarray(last.image) != np.asarray(image)).any(axis=-1)
        assert last.image.mode == image.mode and not (changed & ~painted).any(), (case, mode)


def test_any_text_is_a_prompt(effort: Effort, pipe: Pipeline) -> None:
    for case, chance in effort.cases(30, 3000):
        prompt = any_text(chance)
        run = pipe.generate(prompt, seed=1, settings=QUICK)
        first = next(run)
        assert first.kind == "start" and first.recipe.to_json(), (case, prompt)
        pipe.unknown_words(prompt)
        pipe.corrections(prompt)
