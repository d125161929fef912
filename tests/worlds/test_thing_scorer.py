"""The scorer of things, with a detector that knows them by their pixels."""

from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pixel_things import BLOCK, GRID, LEMON, NAMES, SCORER, drawn
from tiny_models import tiny_model

from imagebart.core.errors import InputError, WeightsError
from imagebart.core.settings import SamplingSettings
from imagebart.fitting import CANVAS
from imagebart.imaging.crop import Box
from imagebart.imaging.files import to_images
from imagebart.pipeline import Pipeline
from imagebart.ui.messages import scale_line
from imagebart.worlds.ranking import DETECTOR, Describer, bundled_scorer
from imagebart.worlds.things import Asked, ThingDetector, ThingScorer, relation, save_detector
from recipes.things.denoiser import conditioner
from recipes.things.detector import NAMES as SHIPPED


def test_things_are_found_where_they_are() -> None:
    for things in (
        [(LEMON, "", Box(0, 0, 4)), (BLOCK, "green", Box(4, 3, 4))],
        [(BLOCK, "red", Box(0, 2, 6)), (LEMON, "", Box(6, 0, 2)), (BLOCK, "green", Box(6, 6, 2))],
    ):
        image, near = drawn(things), torch.zeros(GRID, GRID, dtype=torch.bool)
        assert [(f.noun, NAMES.colors[f.color], f.box) for f in SCORER.things(image)] == things
        assert SCORER.things(image, near) == []
        near[things[0][2].cells] = True
        assert [f.box for f in SCORER.things(image, near)] == [things[0][2]]


def test_an_image_is_described_in_words_that_captions_have() -> None:
    assert isinstance(SCORER, Describer)
    lemon, red, green = (LEMON, "", Box(0, 0, 4)), (BLOCK, "red", Box(4, 4, 4)), (BLOCK, "green", Box(6, 0, 2))
    for image, words in (
        (drawn([lemon, red]), "a lemon, a red toy block on a white background"),
        (drawn([lemon, (LEMON, "", Box(6, 6, 2))]), "two lemons on a white background"),
        (drawn([green], "white", "blue"), "a green toy block, white wall, blue floor"),
        (drawn([], "blue", "blue"), "blue background"),
        (torch.rand(3, 64, 64) * 2 - 1, None),
    ):
        assert SCORER.describe(image[None]) == words
    assert SCORER.contrast(image[None], "a lemon") is None


@pytest.fixture(scope="module")
def shipped() -> ThingScorer:
    """With the words of the model that ships."""
    detector = ThingDetector(len(SHIPPED.nouns), len(SHIPPED.colors), width=8)
    return ThingScorer(detector, SHIPPED, conditioner(16), 16)


def said(scorer: ThingScorer, asked: Asked) -> str:
    """ "12 red car"; the nouns of a group only by their number: "3 of 38"."""
    names = scorer.names
    name = names.nouns[asked.nouns[0]][0] if len(asked.nouns) == 1 else f"of {len(asked.nouns)}"
    size = {0.5: "tiny", 0.7: "small", 1.0: "", 1.4: "big", 1.7: "huge"}[asked.size]
    color = "" if asked.color is None else names.colors[asked.color]
    return " ".join(filter(None, (str(asked.count), size, color, name)))


ASKED = {
    "a hors left of a horse": ["1 horse", "1 horse"],
    "a candl and a candle": ["1 candle", "1 candle"],
    "a monke, a monkey, a carro": ["1 monkey", "1 monkey", "1 carrot"],
    "12 cats, ten hearts": ["12 cat", "10 heart"],
    "0 cats, 999 dogs and many owls": ["1 cat", "20 dog", "6 owl"],
    f"{'9' * 5000} cats": ["20 cat"],
    "a dozen cats, two dozen keys and several of the stars": ["12 cat", "20 key", "3 star"],
    "a pair of small red cars, a big cat, a tiny blue balloon": ["2 small red car", "1 big cat", "1 tiny blue balloon"],
    "the huge orange book and an orange": ["1 huge orange book", "1 orange"],
    "an orange, orange background": ["1 orange"],
    "a white horse on a pink background, a gray car": ["1 white horse", "1 grey car"],
    "three animals, fruit, a vehicle": ["3 of 80", "1 of 13", "1 of 18"],
    "Flowers and anmals": ["2 of 6", "2 of 80"],
    "a purple vehicle, two pink animals": ["1 purple of 14", "2 pink of 67"],
    "": [],
    "A red-car, two teddy-bears!": ["1 red car", "2 teddy bear"],
}


def test_numbers_sizes_colors_and_groups_are_read(shipped: ThingScorer) -> None:
    assert {prompt: [said(shipped, one) for one in shipped.asked(prompt)] for prompt in ASKED} == ASKED
    assert not any(shipped.conditioner.unknown_words(prompt) for prompt in ASKED)
    assert "does not know" not in str(shipped.conditioner.encode([*ASKED]).notes)


def test_a_color_that_a_thing_does_not_come_in_is_named(shipped: ThingScorer) -> None:
    notes = {
        "a blue zebra": ["There is no blue zebra here; it is drawn black and white."],
        "a blue kite, two blue kites": ["There is no blue kite here; it is drawn in its own colors."],
        "a horse on a white background": [],
        "a white swan, a black and white cow, a red apple, a pink car, a white animal": [],
    }
    assert {prompt: shipped.notes(prompt) for prompt in notes} == notes


def test_where_things_lie_is_read(shipped: ThingScorer) -> None:
    places = {
        "a cat on a chair": "on",
        "a big cat on top of a red car": "on",
        "a cat next to a dog": "left",
        "a cat to the left of the dog": "left",
        "a cat right of a small dog": "right",
        "an owl over a tree": "above",
        "a cat beneath a tree": "below",
        "two cats on a chair": "",
        "a cat on a pink background and a dog": "",
        "on the left a cat, on the right a dog": "",
    }
    assert {prompt: relation(shipped.asked(prompt)) for prompt in places} == places


def boxes_of(scorer: ThingScorer, prompt: str, seed: int) -> list[Box]:
    """Those of the things of a plan."""
    return [box for _, box in scorer.plan(prompt, seed)[1]]


def test_what_stands_on_something_touches_it(shipped: ThingScorer) -> None:
    for seed in range(10):
        cat, chair = boxes_of(shipped, "a small cat on a big chair", seed)
        assert cat.top + cat.side == chair.top and cat.side < chair.side
        assert chair.left <= cat.left and cat.left + cat.side <= chair.left + chair.side


def test_a_pipeline_knows_the_words_of_its_scorer(shipped: ThingScorer) -> None:
    model = tiny_model("text")
    model.conditioner = shipped.conditioner.replace(tokens=model.conditioner.tokens)
    pipe = Pipeline(model)
    assert pipe.unknown_words("2 tiny gnus beside some fruit and 12 spoons") == ["gnus", "spoons"]
    assert pipe.corrections("vegetabels") == {"vegetabels": "vegetables"}
    assert {"tiny", "beside", "fruit", "cat"} < set(pipe.vocabulary) and pipe.vocabulary == sorted(pipe.vocabulary)


def test_an_image_is_planned_as_its_ground_and_things_apart_from_each_other() -> None:
    layouts = set()
    for seed in range(20):
        ground, things = SCORER.plan("two lemons and a red block on a blue background", seed)
        names, boxes = zip(*things, strict=True)
        assert (ground, names) == (("blue", "blue"), ("a lemon", "a lemon", "a red toy block"))
        assert not any(one.overlap(other) for one, other in combinations(boxes, 2))
        layouts.add(boxes)
    assert len(layouts) > 15
    assert SCORER.plan("a blue background", 0) == (("blue", "blue"), [])
    more = boxes_of(SCORER, "9 lemons and 9 blocks", 0)
    assert 9 <= len(more) <= 16 and {box.side for box in more} == {2}, "two tokens a side; the rest is left out"


def test_a_plan_has_the_ground_that_is_named_or_any() -> None:
    for words, grounds in (
        ("on a white ground", {("white", "white")}),
        ("white wall, blue floor", {("white", "blue")}),
        ("blue wall", {("blue", "blue")}),
        ("", {("white", "white"), ("blue", "blue")}),
    ):
        assert {SCORER.plan(f"a lemon, {words}", seed)[0] for seed in range(20)} == grounds


def test_a_plan_has_things_where_they_are_said_to_lie() -> None:
    for words, down, across in (("left of", 0, -1), ("to the right of", 0, 1), ("above", -1, 0), ("under", 1, 0)):
        for seed in range(20):
            one, other = boxes_of(SCORER, f"a lemon {words} a green block", seed)
            assert (one.top - other.top) * down + (one.left - other.left) * across >= other.side / 2


PIPE = Pipeline(tiny_model("text", layers=True), scorer=SCORER)


def test_a_planned_image_is_drawn_thing_by_thing() -> None:
    """Each changes its own square alone, and the steps of all count as one chain's."""
    prompt, settings = "a red block and a lemon", SamplingSettings(scales=2)
    (wall, _), things = SCORER.plan(prompt, 5)
    events = list(PIPE.generate(prompt, seed=5, settings=settings))
    ends = [event for event in events if event.kind in ("stage", "result")]
    assert [event.stage for event in ends] == [4, 3, 2, 1] and {event.stages for event in events} == {4}
    assert [event.drawing for event in ends[::2]] == [name for name, _ in things]
    assert scale_line(events[-1]) == "A lemon: step 4 of 4"
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions) and fractions[-1] == 1
    shown = [Image.new("RGB", (CANVAS, CANVAS), NAMES.grounds[wall]), *(end.image for end in ends[1::2])]
    cell = CANVAS // GRID
    for (_, box), (before, after) in zip(things, pairwise(shown), strict=True):
        changed = (np.asarray(before) != np.asarray(after)).any(2)
        rows, columns = (slice(part.start * cell, part.stop * cell) for part in box.cells)
        assert changed[rows, columns].any()
        changed[rows, columns] = False
        assert not changed.any()


def test_images_that_show_what_is_asked_for_come_first() -> None:
    box = Box(0, 0, GRID)
    images = torch.stack([drawn([(BLOCK, "red", box)]), drawn([(LEMON, "", box)]), drawn([(BLOCK, "green", box)])])
    assert SCORER.score(images, "a lemon").argmax() == 1
    assert SCORER.score(images, "a green block").argsort(descending=True).tolist() == [2, 0, 1]
    assert SCORER.score(images, "something nice").tolist() == [0, 0, 0]
    both = replace(SCORER, names=NAMES.replace(groups={"toy": (LEMON, BLOCK)}))
    shown = torch.stack([drawn([]), *images])
    alone = torch.stack([SCORER.score(shown, name) for name in ("a lemon", "a block")])
    assert both.score(shown, "a toy").tolist() == alone.amax(0).tolist()
    assert both.score(shown, "a green toy").tolist() == SCORER.score(shown, "a green block").tolist()


def test_a_thing_is_found_by_its_name_and_free_space_where_there_is_none() -> None:
    side = PIPE.image_size
    (shown,) = to_images(F.interpolate(drawn([(LEMON, "", Box(0, 0, 4))])[None], (side, side)))
    places = [np.asarray(PIPE.suggest_mask(shown, words)) > 0 for words in ("the lemon", "a green toy block")]
    lemon, space = (place[:: side // GRID, :: side // GRID] for place in places)
    assert lemon[:4, :4].all() and lemon.sum() == 16
    assert space.sum() == 16 and not (space & lemon).any()
    with pytest.raises(InputError):
        PIPE.suggest_mask(shown, "a house")


def test_a_folder_holds_a_scorer_and_damaged_ones_are_named(tmp_path: Path) -> None:
    model, detector, path = tiny_model("text", layers=True), ThingDetector(2, 3, width=16).eval(), tmp_path / DETECTOR
    save_detector(detector, NAMES, path)
    loaded = bundled_scorer(tmp_path, model)
    assert isinstance(loaded, ThingScorer) and loaded.names == NAMES
    squares = torch.rand(2, 3, 64, 64) * 2 - 1
    for mine, theirs in zip(detector(squares), loaded.detector(squares), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-2, rtol=1e-2)
    with pytest.raises(WeightsError, match="takes none in words"):
        bundled_scorer(tmp_path, tiny_model("class", layers=True))
    with pytest.raises(WeightsError, match="the model beside it draws none"):
        bundled_scorer(tmp_path, tiny_model("text"))
    content = path.read_bytes()
    damages = (b"nouns.weight", b"nouns.wrongs"), (b'\\"sides\\"', b'\\"hides\\"'), (content, b"no tensors")
    for right, wrong in damages:
        path.write_bytes(content.replace(right, wrong))
        with pytest.raises(WeightsError, match=f"{DETECTOR} cannot be used as a scorer: "):
            bundled_scorer(tmp_path, model)
