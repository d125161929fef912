"""The scorer of things, with a reader that is trained here to tell yellow disks from red and green squares."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny_models import tiny_model
from torch import Tensor

from imagebart.conditioning.conditioners import TextConditioner
from imagebart.errors import WeightsError
from imagebart.imaging.files import to_images
from imagebart.pipeline import Pipeline
from imagebart.ranking import WEIGHTS, Describer, Finder, bundled_scorer, rank
from imagebart.things import Box, ThingNames, ThingReader, ThingScorer, load_reader, save_reader

GRID, CELL = 8, 8
NAMES = ThingNames(
    nouns=(("lemon", "lemons", "yellow fruit"), ("toy block", "toy blocks", "block")),
    noun_colors=("", "red"),
    colors=("", "red", "green"),
    grounds={"white": (250, 250, 250), "blue": (120, 180, 240)},
    sides=(2, 4, 6),
    counts=("", "a", "two", "three"),
)
RGB = {"": (240, 210, 20), "red": (220, 30, 30), "green": (30, 170, 60)}
LEMON, BLOCK = 0, 1


def drawn(things: list[tuple[int, str, Box]], wall: str = "white", floor: str = "white") -> Tensor:
    """An image [3, 64, 64] in [-1, 1]: disks and squares that nearly fill their boxes."""
    image = np.empty((GRID * CELL, GRID * CELL, 3), np.float32)
    image[:40], image[40:] = NAMES.grounds[wall], NAMES.grounds[floor]
    for noun, color, box in things:
        size = box.side * CELL
        y, x = np.mgrid[:size, :size] + 0.5 - size / 2
        inside = np.hypot(x, y) < 0.45 * size if noun == LEMON else np.maximum(abs(x), abs(y)) < 0.42 * size
        rows, columns = (slice(start * CELL, start * CELL + size) for start in (box.top, box.left))
        image[rows, columns][inside] = RGB[color]
    return torch.from_numpy(image / 127.5 - 1).permute(2, 0, 1)


def random_things(random: np.random.Generator) -> list[tuple[int, str, Box]]:
    things: list[tuple[int, str, Box]] = []
    for _ in range(3):
        side = int(random.choice(NAMES.sides))
        box = Box(*(int(random.integers(GRID - side + 1)) for _ in range(2)), side)
        if not any(box.overlap(other) for _, _, other in things):
            noun = int(random.integers(2))
            things.append((noun, str(random.choice(["red", "green"])) if noun else "", box))
    return things


@pytest.fixture(scope="module")
def scorer() -> ThingScorer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reader, random = ThingReader(2, 3, width=16), np.random.default_rng(0)
        optimizer = torch.optim.AdamW(reader.parameters(), 2e-3)
        asker = ThingScorer(reader, NAMES, TextConditioner.from_captions(["a lemon"]), GRID)
        for _ in range(150):
            squares, nouns, colors = [], [], []
            for _ in range(24):
                things = random_things(random)
                image = drawn(things, *random.choice(list(NAMES.grounds), 2))
                if random.random() < 0.5:
                    noun, color, box = things[int(random.integers(len(things)))]
                else:
                    side = int(random.choice(NAMES.sides))
                    box = Box(*(int(random.integers(GRID - side + 1)) for _ in range(2)), side)
                    found = [t for t in things if t[2] == box]
                    noun, color = found[0][:2] if found else (2, "")
                y, x = (slice(start * CELL, (start + box.side) * CELL) for start in (box.top, box.left))
                squares.append(F.interpolate(image[None, :, y, x], (64, 64), mode="bilinear")[0])
                nouns.append(noun)
                colors.append(NAMES.colors.index(color))
            said, shown = reader(torch.stack(squares))
            loss = F.cross_entropy(said, torch.tensor(nouns)) + F.cross_entropy(shown, torch.tensor(colors))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    asker.reader.eval().requires_grad_(False)
    known = TextConditioner.from_captions(["a yellow lemon fruit and the red green toy block blocks lemons on white"])
    return ThingScorer(reader, NAMES, known, GRID)


def test_things_are_found_where_they_are(scorer: ThingScorer) -> None:
    random, right = np.random.default_rng(1), 0
    for _ in range(20):
        things = sorted(random_things(random), key=lambda t: (t[2].left, t[2].top))
        found = scorer.things(drawn(things))
        right += [(f.noun, NAMES.colors[f.color], f.box) for f in found] == things
        assert all(0.6 <= f.probability <= 1 for f in found)
    assert right >= 16


def test_an_image_is_described_in_words_that_captions_have(scorer: ThingScorer) -> None:
    assert isinstance(scorer, Describer)
    lemon, red, green = (LEMON, "", Box(0, 0, 4)), (BLOCK, "red", Box(4, 4, 4)), (BLOCK, "green", Box(0, 6, 2))
    assert scorer.describe(drawn([lemon, red])[None]) == "a lemon, a red toy block on a white background"
    assert scorer.describe(drawn([(LEMON, "", Box(0, 0, 2)), (LEMON, "", Box(4, 4, 4))])[None]) == (
        "two lemons on a white background"
    )
    assert scorer.describe(drawn([green], "white", "blue")[None]) == "a green toy block, white wall, blue floor"
    assert scorer.describe(drawn([], "blue", "blue")[None]) == "blue background"
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert scorer.describe(noise) is None
    assert scorer.contrast(noise, "a lemon") is None


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("a lemon", [(LEMON, None)]),
        ("Red toy-blocks and a yellow fruit!", [(BLOCK, 1), (LEMON, None)]),
        ("the grenn block", [(BLOCK, 2)]),
        ("a house", []),
        ("", []),
    ],
)
def test_prompts_name_nouns_with_the_color_before_them(
    scorer: ThingScorer, prompt: str, asked: list[tuple[int, int | None]]
) -> None:
    assert scorer.asked(prompt) == asked


def test_images_that_show_what_is_asked_for_come_first(scorer: ThingScorer) -> None:
    box = Box(2, 2, 4)
    images = torch.stack([drawn([(BLOCK, "red", box)]), drawn([(LEMON, "", box)]), drawn([(BLOCK, "green", box)])])
    assert rank(scorer, images, "a lemon")[0] == 1
    assert rank(scorer, images, "a green block") == [2, 0, 1]
    assert scorer.score(images, "something nice").tolist() == [0, 0, 0]


def test_a_thing_is_found_by_its_name_and_free_space_where_there_is_none(scorer: ThingScorer) -> None:
    assert isinstance(scorer, Finder)
    things = [(LEMON, "", Box(0, 0, 4)), (BLOCK, "red", Box(4, 4, 4))]
    image = drawn(things)
    for noun, word in ((LEMON, "the lemon"), (BLOCK, "a green toy block")):
        mask = torch.zeros(GRID, GRID, dtype=torch.bool)
        mask[things[noun][2].cells] = True
        found = scorer.find(image, word)
        assert found is not None and torch.equal(found, mask)
    space = scorer.find(drawn(things[1:]), "a lemon")
    assert space is not None and space.sum() == 16 and not space[4:, 4:].any()
    full = drawn([(BLOCK, "red", Box(top, left, 4)) for top, left in product((0, 4), repeat=2)])
    assert scorer.find(full, "a lemon") is None
    assert scorer.find(image, "a house") is None


def test_a_folder_holds_a_scorer_and_damaged_ones_are_named(scorer: ThingScorer, tmp_path: Path) -> None:
    model = tiny_model("text")
    save_reader(scorer.reader, NAMES, tmp_path / WEIGHTS)
    loaded = bundled_scorer(tmp_path, model)
    assert isinstance(loaded, ThingScorer)
    image = drawn([(LEMON, "", Box(2, 2, 4))])
    for mine, theirs in zip(scorer.read(image[None]), loaded.read(image[None]), strict=True):
        torch.testing.assert_close(mine, theirs, atol=0.1, rtol=0.05)
    with pytest.raises(WeightsError, match="takes none in words"):
        bundled_scorer(tmp_path, tiny_model("class"))
    content = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(content.replace(b"nouns.weight", b"nouns.wrongs"))
    with pytest.raises(WeightsError, match="cannot be used as a scorer"):
        bundled_scorer(tmp_path, model)
    (tmp_path / WEIGHTS).write_bytes(content.replace(b'\\"sides\\"', b'\\"hides\\"'))
    with pytest.raises(WeightsError, match="cannot be used as a scorer"):
        load_reader(tmp_path / WEIGHTS)


def test_the_pipeline_suggests_the_place_of_a_thing(scorer: ThingScorer) -> None:
    pipe = Pipeline(tiny_model("text"), scorer=scorer)
    size = pipe.image_size
    image = F.interpolate(drawn([(LEMON, "", Box(0, 0, 4))])[None], (size, size))
    found = scorer.find(image[0], "lemon")
    assert found is not None
    mask = pipe.suggest_mask(to_images(image)[0], "lemon").resize((pipe.grid, pipe.grid), Image.Resampling.NEAREST)
    assert (np.asarray(mask) > 0).tolist() == found.tolist()
