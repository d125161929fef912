"""Scenes of things: by number, what is said of them, what is masked, and how they are drawn."""

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from tiny_models import tiny_first_stage

from imagebart.model import ImageBART
from imagebart.models.denoiser import Denoiser
from imagebart.models.vqgan import FirstStage
from imagebart.training.config import LoopConfig, StageShape
from imagebart.training.denoiser import denoiser_config
from imagebart.training.masks import PARTS_PER_PATCH
from imagebart.training.token_task import text_config
from imagebart.weights.folder import read_config
from imagebart.worlds.things import ThingDetector, ThingScorer, load_detector, save_detector
from recipes import generator
from recipes.things import artwork
from recipes.things.__main__ import main
from recipes.things.artwork import CELL, GRID, GROUNDS, NOUNS, SIZE, Ground, Placed, Scene, render, sprite
from recipes.things.scenes import BLOCK, MARGIN, SIDES, SceneOptions, describe, edit_task, sample
from recipes.things.training import COLORS, NAMES, NOTHING, conditioner, labels, square_item, train_detector

SHAPE = StageShape(width=32, depth=1, heads=2, head_size=16, encoder_depth=1, query_tokens=9)


@pytest.fixture(autouse=True)
def drawn_artwork(monkeypatch: pytest.MonkeyPatch) -> None:
    """Red disks in place of the artwork, which is fetched from a registry."""
    disk, content = Image.new("RGBA", (256, 256)), io.BytesIO()
    ImageDraw.Draw(disk).ellipse((28, 28, 227, 227), (220, 30, 40, 255))
    disk.save(content, "WEBP", lossless=True)
    monkeypatch.setattr(artwork, "_files", lambda: {noun.code: content.getvalue() for noun in NOUNS})
    artwork.sprite.cache_clear()
    artwork.layer.cache_clear()


def test_a_number_is_always_the_same_scene_and_its_things_lie_apart_on_the_token_grid() -> None:
    scenes = [sample(number) for number in range(200)]
    assert scenes == [sample(number) for number in range(200)] and len(set(scenes)) > 190
    for scene in scenes:
        taken = np.zeros((GRID, GRID), int)
        for thing in scene.things:
            taken[thing.box.cells] += 1
            assert thing.side in SIDES and taken[thing.box.cells].shape == (thing.side, thing.side)  # within the image
        assert taken.max(initial=0) <= 1


def test_captions_say_what_a_scene_shows_and_are_read_as_they_are_said() -> None:
    """Also where a word is a color and a thing: "an orange car on an orange ground"."""
    scorer = ThingScorer(ThingDetector(len(NOUNS), len(COLORS), width=8), NAMES, conditioner(), GRID)

    def read(text: str) -> list[tuple[tuple[int, ...], str, int]]:
        asked = scorer.asked(text)
        return [(one.nouns, "" if one.color is None else COLORS[one.color], one.count) for one in asked]

    anything = [NAMES.groups[name] for name in ("plant", "flower")]  # though one noun is also called so
    for number in range(300):
        scene = sample(number, 3, SceneOptions(colored=0.3))
        said = describe(scene, generator(number, 3, 7))
        shown = Counter(thing.noun for thing in scene.things)
        assert shown == sum((Counter({mention.noun: mention.count}) for mention in said.mentions), Counter())
        if said.place in ("left", "right"):
            first, second = (next(t for t in scene.things if t.noun == m.noun) for m in said.mentions)
            assert (first.left + first.side / 2 < second.left + second.side / 2) == (said.place == "left")
        assert scorer.conditioner.encode([said.text]).notes == []
        found = read(said.text)
        assert [one[1:] for one in found] == [(mention.color, mention.count) for mention in said.mentions], said.text
        for (nouns, *_), mention in zip(found, said.mentions, strict=True):
            assert nouns == (mention.noun,) or mention.noun in nouns in anything, said.text
        values = labels(said).tolist()
        assert values[: 3 * len(found)] == [n for m in said.mentions for n in (m.noun, COLORS.index(m.color), m.count)]
        assert values[3 * len(found) : 18 : 3] == [NOTHING] * (6 - len(found))
    orange, car = (next(i for i, noun in enumerate(NOUNS) if noun.name == name) for name in ("orange", "car"))
    assert read("an orange") == read("orange on an orange background") == [((orange,), "", 1)]
    assert read("two oranges and an orange car, orange wall") == [((orange,), "", 2), ((car,), "orange", 1)]


@pytest.mark.shipped
def test_the_shipped_model_reads_the_words_of_this_recipe() -> None:
    folder = Path(__file__).parents[2] / "checkpoints" / "things"
    assert load_detector(folder / "detector.safetensors")[1] == NAMES
    assert read_config(folder / "config.json").conditioner == conditioner()


def test_tasks_in_a_row_give_as_many_tokens_around_what_is_masked() -> None:
    silent = 0
    for block in range(20):
        tasks = [edit_task(block * BLOCK + number) for number in range(BLOCK)]
        assert len({len(task.places) for task in tasks}) == 1
        for task in tasks:
            masked = task.mask.view(GRID, PARTS_PER_PATCH, GRID, PARTS_PER_PATCH).any(3).any(1)
            given = torch.zeros(GRID**2, dtype=torch.bool)
            given[task.places] = True
            assert (given.view(GRID, GRID) | ~masked).all()
            if not given.all():  # one thing's box, and the things that lie wholly in the mask are all that is said
                rows, columns = (masked.any(dim).nonzero()[:, 0] for dim in (1, 0))
                around = torch.zeros(GRID, GRID, dtype=torch.bool)
                spans = (slice(max(0, int(at[0]) - MARGIN), int(at[-1]) + 1 + MARGIN) for at in (rows, columns))
                around[tuple(spans)] = True
                assert (given.view(GRID, GRID) | ~around).all()
                held = [thing for thing in task.scene.things if masked[thing.box.cells].all()]
                assert bool(held) == bool(task.caption.text)  # without words the ground goes on
                silent += not held
                assert sum(mention.count for mention in task.caption.mentions) == len(held)
    assert 0.05 < silent / (20 * BLOCK) < 0.25


def test_a_scene_is_drawn_as_it_is_described() -> None:
    thing = Placed(0, "", 4, 2, 6)
    image = render(Scene(Ground("white", "blue", horizon=9), (thing,)))
    assert image.shape == (SIZE, SIZE, 3)
    assert (tuple(image[0, 0]), tuple(image[-1, -1])) == (GROUNDS["white"], GROUNDS["blue"])
    mask = np.zeros((SIZE, SIZE), bool)
    mask[thing.pixels] = sprite(0, "", 6 * CELL)[..., 3] > 127
    assert np.percentile(np.abs(image[mask].astype(int) - (220, 30, 40)), 90) < 8  # all but its edge
    assert mask.any(0).sum() == pytest.approx(0.94 * 6 * CELL, abs=2)
    outside = np.ones_like(mask)
    outside[thing.pixels] = False  # its shadow lies in its box
    empty = render(Scene(Ground("white", "blue", horizon=9)))
    assert (image[outside] == empty[outside]).all()
    shadow = ~outside & ~mask & (image.sum(2) < empty.sum(2) - 20)
    assert shadow.any() and shadow[: 8 * CELL].sum() < 0.2 * shadow.sum()  # below the thing
    color = render(Scene(Ground("white", "white"), (Placed(0, "blue", 4, 4, 8),)))[128, 128].astype(int)
    assert color[2] > color[0] + 60


def test_squares_show_what_their_labels_say_and_a_detector_is_trained_and_loaded(tmp_path: Path) -> None:
    squares = [square_item(number) for number in range(80)]
    nothing = [square["noun"] == NOTHING for square in squares]
    assert 0.25 < np.mean(nothing) < 0.6
    red = [float(((s["image"][0] > 180) & (s["image"][1] < 80)).float().mean()) for s in squares]  # of the disk
    whole = [share for share, s in zip(red, squares, strict=True) if s["noun"] != NOTHING and COLORS[s["color"]] == ""]
    assert min(whole) > 0.4 and max(whole) < 0.85
    reader = train_detector(tmp_path, LoopConfig(steps=2, batch_size=4))
    again, names = load_detector(tmp_path / "detector.safetensors")
    assert names == NAMES
    for name, value in again.state_dict().items():
        torch.testing.assert_close(value, reader.state_dict()[name], rtol=1e-3, atol=1e-6)


@pytest.mark.release
def test_a_model_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first_stage = FirstStage(tiny_first_stage(resolution=SIZE, pixel_unshuffle=CELL, multipliers=(1,), encoder="patch"))
    model, words = tmp_path / "model", conditioner()
    config = denoiser_config(SHAPE, first_stage.config, words, text_config(SHAPE, words))
    ImageBART(first_stage, Denoiser(config), words).save_pretrained(model)
    save_detector(ThingDetector(len(NOUNS), len(COLORS), width=8), NAMES, model / "detector.safetensors")
    measured = ["evaluate", "--model", str(model), "--samples", "6", "--out", str(tmp_path / "figures.json")]
    assert main(measured) == 0
    values = {m["name"]: m["value"] for m in json.loads((tmp_path / "figures.json").read_text())["measures"]}
    assert values["no pixel changed outside the mask"] == 1
    assert values["outlines and rectangles at any place: the thing asked for"] < 0.5  # nothing was trained
    (model / "detector.safetensors").unlink()
    assert main(measured) == 2
    assert "has no detector of things" in capsys.readouterr().err
