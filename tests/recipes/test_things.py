"""Scenes of things: by number, what is said of them, what is masked, and how they are drawn."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from imagebart.training.config import LoopConfig
from imagebart.training.masks import PARTS_PER_PATCH
from recipes import generator
from recipes.things import artwork
from recipes.things.artwork import CELL, GRID, GROUNDS, HUES, NOUNS, SIZE, Ground, Placed, Scene, render, thing_mask
from recipes.things.reader import COLORS, NOTHING, Squares, load_reader, read, train_reader
from recipes.things.scenes import (
    BLOCK,
    MARGIN,
    SIDES,
    CrowdedScenes,
    EditTasks,
    describe,
    edit_task,
    sample,
)
from recipes.things.training import caption, conditioner, labels


@pytest.fixture(autouse=True)
def drawn_artwork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red disks in place of the artwork, which is fetched from a registry."""
    disk = Image.new("RGBA", (256, 256))
    ImageDraw.Draw(disk).ellipse((28, 28, 227, 227), (220, 30, 40, 255))
    content = io.BytesIO()
    disk.save(content, "WEBP", lossless=True)
    with tarfile.open(tmp_path / "artwork.tgz", "w:gz") as archive:
        for noun in NOUNS:
            member = tarfile.TarInfo(f"package/assets/{noun.code}.webp")
            member.size = len(content.getvalue())
            archive.addfile(member, io.BytesIO(content.getvalue()))
    monkeypatch.setattr(artwork, "fetch", lambda: tmp_path / "artwork.tgz")
    for cached in (artwork._files, artwork.sprite, artwork.layer):
        cached.cache_clear()


def test_nouns_and_their_words_are_distinct() -> None:
    names = Counter(name for noun in NOUNS for name in {noun.name, noun.plural, *noun.synonyms})
    assert [name for name, count in names.items() if count > 1] == []
    assert len({noun.code for noun in NOUNS}) == len(NOUNS) >= 100
    assert {noun.color for noun in NOUNS} <= {"", *HUES}


def test_a_number_is_always_the_same_scene_and_its_things_lie_apart_on_the_token_grid() -> None:
    scenes = [sample(number) for number in range(300)]
    assert scenes == [sample(number) for number in range(300)]
    assert len(set(scenes)) > 290
    for scene in scenes:
        taken = np.zeros((GRID, GRID), int)
        for thing in scene.things:
            taken[thing.box] += 1
            assert thing.side in SIDES
            assert taken[thing.box].shape == (thing.side, thing.side)  # within the image
        assert taken.max(initial=0) <= 1
    assert {len(scene.things) for scene in scenes} >= {0, 1, 2, 3, 4}


def test_captions_say_what_a_scene_shows_and_are_read_by_known_words_alone() -> None:
    reader = conditioner()
    for number in range(400):
        scene, said = sample(number), describe(sample(number), generator(number, 0, 7))
        assert sum(mention.count for mention in said.mentions) == len(scene.things)
        assert {mention.noun for mention in said.mentions} == {thing.noun for thing in scene.things}
        for mention in said.mentions:
            noun = NOUNS[mention.noun]
            words = (noun.plural,) if mention.count > 1 else (noun.name, *noun.synonyms)
            assert any(word in said.text for word in words)
            assert mention.color in said.text
        if said.place in ("left", "right"):
            first, second = (next(t for t in scene.things if t.noun == m.noun) for m in said.mentions)
            assert (first.left + first.side / 2 < second.left + second.side / 2) == (said.place == "left")
        assert reader.unknown_words(said.text) == []
        assert reader.corrections(said.text) == []
        assert reader.encode([said.text]).notes == []


def test_labels_name_what_a_caption_says() -> None:
    for number in range(100):
        said = caption(number)
        values = labels(said).tolist()
        for place, mention in enumerate(said.mentions):
            noun, color, count = values[3 * place : 3 * place + 3]
            assert (noun, ("", *HUES)[color], count) == (mention.noun, mention.color, mention.count)
        assert values[3 * len(said.mentions) : 18 : 3] == [len(NOUNS)] * (6 - len(said.mentions))
        assert (values[19] > 0) == (said.ground is not None)


def test_tasks_in_a_row_give_as_many_tokens_around_what_is_masked() -> None:
    for block in range(40):
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
                held = [thing for thing in task.scene.things if masked[thing.box].all()]
                assert held
                assert sum(mention.count for mention in task.caption.mentions) == len(held)


def test_a_scene_is_drawn_as_it_is_described() -> None:
    thing = Placed(0, "", 4, 2, 6)
    image = render(Scene(Ground("white", "blue", horizon=9), (thing,)))
    assert image.shape == (SIZE, SIZE, 3)
    assert (tuple(image[0, 0]), tuple(image[-1, -1])) == (GROUNDS["white"], GROUNDS["blue"])
    mask = thing_mask(thing)
    assert np.percentile(np.abs(image[mask].astype(int) - (220, 30, 40)), 90) < 8  # all but its edge
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    assert rows[0] >= 4 * CELL and rows[-1] < 10 * CELL and columns[0] >= 2 * CELL and columns[-1] < 8 * CELL
    assert columns[-1] - columns[0] + 1 == pytest.approx(0.94 * 6 * CELL, abs=2)
    outside = np.ones_like(mask)
    outside[thing.pixels] = False  # its shadow lies in its box
    empty = render(Scene(Ground("white", "blue", horizon=9)))
    assert (image[outside] == empty[outside]).all()
    shadow = ~outside & ~mask & (image.sum(2) < empty.sum(2) - 20)
    assert shadow.any() and shadow[: 8 * CELL].sum() < 0.2 * shadow.sum()  # below the thing


def test_colors_are_turned_and_things_of_a_data_set_are_rendered() -> None:
    color = render(Scene(Ground("white", "white"), (Placed(0, "blue", 4, 4, 8),)))[128, 128].astype(int)
    assert color[2] > color[0] + 60
    item = EditTasks()[5]
    assert (item["image"].dtype, tuple(item["image"].shape)) == (torch.uint8, (3, SIZE, SIZE))
    crowded = [len(sample(number, 0, 8, (40, 35, 20, 5)).things) for number in range(50)]
    assert np.mean(crowded) > 4
    assert tuple(CrowdedScenes()[0]["image"].shape) == (3, SIZE, SIZE)


def test_squares_show_what_their_labels_say_and_a_reader_is_trained_and_loaded(tmp_path: Path) -> None:
    squares = [Squares()[number] for number in range(80)]
    nothing = [square["noun"] == NOTHING for square in squares]
    assert 0.1 < np.mean(nothing) < 0.4
    red = [float(((s["image"][0] > 180) & (s["image"][1] < 80)).float().mean()) for s in squares]  # of the disk
    whole = [share for share, s in zip(red, squares, strict=True) if s["noun"] != NOTHING and COLORS[s["color"]] == ""]
    assert min(whole) > 0.4 and max(whole) < 0.85
    reader = train_reader(tmp_path, LoopConfig(2, 4, sample_every=2))
    again = load_reader(tmp_path / "reader.safetensors")
    scene = Scene(Ground("white", "white"), (Placed(0, "", 4, 4, 8),))
    nouns, colors = read(again, [render(scene)] * 2, [scene.things[0], Placed(0, "", 0, 0, 4)])
    assert nouns.shape == colors.shape == (2,) and int(nouns.max()) <= NOTHING
    for name, value in again.state_dict().items():
        torch.testing.assert_close(value, reader.state_dict()[name], rtol=1e-3, atol=1e-6)
