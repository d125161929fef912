"""The model in checkpoints/things: what is asked for is drawn, found and removed. The detector beside it looks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from imagebart import Pipeline
from imagebart.imaging.files import to_tensor
from imagebart.worlds.things import Found, ThingScorer

HERE = Path(__file__).parent.parent
CELL = 16  # pixels of a patch
pytestmark = pytest.mark.shipped


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return Pipeline.from_pretrained(HERE / "checkpoints" / "things")


@pytest.fixture(scope="module")
def scorer(pipe: Pipeline) -> ThingScorer:
    assert isinstance(pipe.scorer, ThingScorer)
    return pipe.scorer


def box_mask(top: int, left: int, side: int) -> Image.Image:
    mask = Image.new("L", (256, 256))
    ImageDraw.Draw(mask).rectangle(
        (left * CELL, top * CELL, (left + side) * CELL - 1, (top + side) * CELL - 1), fill=255
    )
    return mask


def edited(pipe: Pipeline, image: Image.Image, mask: Image.Image, prompt: str, seed: int) -> Image.Image:
    *_, last = pipe.edit(image, mask, prompt, seed=seed)
    return last.image


def things(scorer: ThingScorer, image: Image.Image) -> list[Found]:
    return scorer.things(to_tensor(image)[0])


def test_what_is_asked_for_is_drawn_where_it_was_painted_and_goes_again(pipe: Pipeline, scorer: ThingScorer) -> None:
    """Twenty nouns, places and grounds by chance: 17 or more are right. Removed again, the ground goes on."""
    random, names = np.random.default_rng(31), scorer.names
    right, gone = 0, 0
    for number, noun in enumerate(random.permutation(len(names.nouns))[:20].tolist()):
        ground = names.grounds[str(random.choice(list(names.grounds)))]
        side = int(random.choice([6, 8]))
        top, left = (int(random.integers(16 - side + 1)) for _ in range(2))
        image, mask = Image.new("RGB", (256, 256), ground), box_mask(top, left, side)
        drawn = edited(pipe, image, mask, names.nouns[noun][0], number)
        outside = np.asarray(mask) == 0
        assert (np.asarray(drawn)[outside] == ground).all()
        found = things(scorer, drawn)
        right += [one.noun for one in found] == [noun]
        if number < 6:
            empty = edited(pipe, drawn, mask, "", number)
            far = np.abs(np.asarray(empty).astype(int)[~outside].mean(0) - ground).max()
            gone += not things(scorer, empty) and far <= 8
    assert right >= 17 and gone >= 5


def test_a_drawn_thing_is_found_by_its_name(pipe: Pipeline, scorer: ThingScorer) -> None:
    image = edited(pipe, Image.new("RGB", (256, 256), scorer.names.grounds["blue"]), box_mask(2, 7, 8), "a lion", 3)
    mask = np.asarray(pipe.suggest_mask(image, "the lion")) > 0
    asked = np.asarray(box_mask(2, 7, 8)) > 0
    assert (mask & asked).sum() / (mask | asked).sum() > 0.6
    assert pipe.describe(image) == "a lion on a blue background"


def test_whole_images_show_what_is_named(pipe: Pipeline, scorer: ThingScorer) -> None:
    *_, last = pipe.generate("a hamburger left of an owl, on a pink background", seed=1)
    assert not last.missed
    found = things(scorer, last.image)
    assert [scorer.names.nouns[one.noun][0] for one in found] == ["hamburger", "owl"]
    ground = scorer.ground(to_tensor(last.image)[0], found)
    assert ground == ("pink", "pink")
