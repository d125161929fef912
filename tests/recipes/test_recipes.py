"""The recipes: captions are true and read, images are what is said of them, parts become a model that is measured."""

import io
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import binomial_z
from PIL import Image, ImageDraw
from tiny_models import save_model_with_scorer, tiny_first_stage
from typer import Typer
from typer.testing import CliRunner

from imagebart.model import ImageBART
from imagebart.models.denoiser import Denoiser
from imagebart.models.vqgan import FirstStage
from imagebart.pipeline import Pipeline
from imagebart.text.conditioners import TextConditioner
from imagebart.training.config import LoopConfig, StageShape, load
from imagebart.training.denoiser import denoiser_config
from imagebart.training.masks import PARTS_PER_PATCH
from imagebart.training.token_task import text_config
from imagebart.weights.folder import read_config
from imagebart.worlds.attribute_classifier import GROUPS, claims_vector
from imagebart.worlds.avatars import VALUES
from imagebart.worlds.things import ThingDetector, ThingScorer, load_detector, save_detector
from recipes import generator
from recipes.avatars.__main__ import main as avatars_main
from recipes.avatars.artwork import BACKGROUNDS, part_svg, parts, rasterise, render
from recipes.avatars.captions import all_words, avatar_conditioner
from recipes.avatars.dataset import HELD_OUT_PAIRS, avatar_item, caption, edit_item, held_out, sample
from recipes.avatars.training import TRAININGS as AVATAR_TRAININGS
from recipes.avatars.training import reading_accuracy, reading_loss
from recipes.still_life.photographs import main as get_photographs
from recipes.things import artwork, scenes
from recipes.things.__main__ import main as things_main
from recipes.things.artwork import CELL, GRID, GROUNDS, NOUNS, SIZE, Ground, Placed, Scene, sprite
from recipes.things.scenes import BLOCK, MARGIN, SIDES, SceneOptions, edit_task
from recipes.things.training import COLORS, NAMES, NOTHING, conditioner, labels, square_item, train_detector
from recipes.things.training import TRAININGS as THING_TRAININGS

ROOT = Path(__file__).parents[2]
SHAPE = StageShape(width=32, depth=1, heads=2, head_size=16, encoder_depth=1, query_tokens=14)


@pytest.mark.shipped
def test_the_shipped_models_read_the_words_of_their_recipes() -> None:
    for recipe, words in (("avatars", avatar_conditioner(77)), ("things", conditioner())):
        assert read_config(ROOT / "checkpoints" / recipe / "config.json").conditioner == words
    assert load_detector(ROOT / "checkpoints" / "things" / "detector.safetensors")[1] == NAMES


def test_prompts_of_new_users_are_read() -> None:
    words = avatar_conditioner(77)
    notes = {
        "purple afro": "There is no purple hair here; pink is the nearest.",
        "v neck, orange": "There is no orange clothing here; yellow is the nearest.",
        "brown background": "There is no brown background here; orange is the nearest.",
        "blue eyes": "There is no blue eye color here; the color was left out.",
        "old": '"old" was read as "grey-haired".',
        "old man with a red beanie": 'This model does not know: "old". It was ignored.',
        "old woman with black hair": 'This model does not know: "old". It was ignored.',
        "pnk hair, rde hta": '"pnk" was read as "pink", "rde" as "red", "hta" as "hat".',
        "green mohawk": 'This model does not know: "green mohawk". It was ignored.',
    }
    assert {prompt: words.encode([prompt]).notes for prompt in notes} == {key: [note] for key, note in notes.items()}
    plain = ["specs", "ginger woman with a bob", "batman t shirt", "frizzy hair", "purple wall", "T-Shirt", "v neck"]
    assert words.encode([*plain, "vneck", "v-neck", "orange hair", "white guy in a suit"]).notes == []


def test_captions_of_avatars_are_true_and_read_as_they_are() -> None:
    conditioner, used = avatar_conditioner(77), set()
    plainly = TextConditioner(tokens=conditioner.tokens, words=conditioner.words)
    said = [(sample(index), caption(index)) for index in range(600)]
    for avatar, what in said:
        assert what.claims and what.claims.keys() <= avatar.visible()
        assert all(getattr(avatar, name) in values for name, values in what.claims.items()), what.text
        if re.search(r"\b(woman|women|girls?|lady)\b", what.text.lower()):
            assert "facial_hair" in what.claims
        used |= set(re.findall(r"[a-z]+", what.text.lower()))
    texts = [what.text for _, what in said]
    assert used <= set(all_words()) and len(set(texts)) > 0.9 * len(texts)
    read = conditioner.encode(texts)
    assert read.notes == [] and torch.equal(read.tokens, plainly.encode(texts).tokens)
    assert (read.tokens > 0).sum(1).max() <= 50


def test_a_number_is_always_the_same_avatar_and_none_of_training_has_a_held_out_pair() -> None:
    avatars = str([sample(i, seed=3) for i in (0, 7, 10**8)])
    assert sha256(avatars.encode()).hexdigest()[:16] == "896020d503ec91f7"
    assert len({frozenset(pair.items()) for pair in HELD_OUT_PAIRS}) == 40
    seen, every = ([sample(index, 0, split) for index in range(1000)] for split in ("train", "all"))
    assert any(map(held_out, every)) and not any(map(held_out, seen))
    shown = {(name, getattr(avatar, name)) for avatar in seen for name in avatar.visible()}
    assert shown == {(name, value) for name, values in VALUES.items() for value in values}


def test_stacked_layers_are_what_the_rasteriser_makes_of_the_whole() -> None:
    for index in (1, 5, 8, 13):
        avatar = replace(sample(index), clothing_color="blue")
        stack = [part_svg(kind, name, color, 128) for kind, name, color in parts(avatar)]
        bodies = []
        for number, svg in enumerate(stack):  # parts reuse each other's ids, which one document cannot
            for before in (' id="', "url(#", 'href="#'):
                svg = svg.replace(before, f"{before}p{number}-")
            bodies.append(svg)
        opening, ground = bodies[0][: bodies[0].index(">") + 1], BACKGROUNDS[avatar.background]
        inner = "".join(body[body.index(">") + 1 : body.rindex("</svg>")] for body in bodies)
        whole = rasterise(f'{opening}<rect x="-9" y="-9" width="300" height="300" fill="{ground}"/>{inner}</svg>')
        difference = np.abs(render(avatar, 128).astype(int) - whole[..., :3])
        assert difference.max() <= 4 and difference.mean() < 0.2


def test_edits_show_another_background_where_the_mask_is_and_the_old_one_around_heads() -> None:
    count, new = 60, 0
    for number in range(count):
        edit, avatar = edit_item(number, 256), avatar_item(number, 256)
        mask = edit["mask"].repeat_interleave(4, 0).repeat_interleave(4, 1)
        changed = (edit["image"] != avatar["image"]).any(0)
        assert mask.any() and not (changed & ~mask).any()
        assert edit["needs_text"] == bool(changed.any()), "only the caption tells what the mask shows"
        assert edit["text"] and (edit["text"] != avatar["text"]) == bool(changed.any())
        new += int(changed.any())
    assert new > 0 and abs(binomial_z(new, count, 0.1)) < 4


def test_the_loss_has_claimed_values_as_equally_likely_targets() -> None:
    """In float64; and the accuracy is of the mentioned attributes alone."""
    readings = torch.randn(3, sum(GROUPS))
    claims = torch.stack([claims_vector(caption(number).claims) for number in (5, 6, 7)])
    losses, right = [], []
    for row, flags in zip(readings.double().numpy(), claims.numpy(), strict=True):
        for part, allowed in zip(*(np.split(values, np.cumsum(GROUPS)[:-1]) for values in (row, flags)), strict=True):
            losses.append(np.log(np.exp(part).sum()) - part[allowed].mean())
            right += [] if allowed[-1] else [allowed[part.argmax()]]
    assert reading_loss(readings, claims).item() == pytest.approx(np.mean(losses), rel=1e-5)
    assert reading_accuracy(readings, claims).item() == pytest.approx(np.mean(right))


def test_every_configuration_is_read() -> None:
    kinds = {"decoder": "first-stage", "decoder256": "first-stage", "first": "first-stage", "scorer": "classifier"}
    for recipe, trainings in (("avatars", AVATAR_TRAININGS), ("things", THING_TRAININGS)):
        for path in (ROOT / "recipes" / recipe / "configs").glob("[!m]*.json"):
            name = path.stem.split("-")[0]
            settings, _ = trainings.get(name) or trainings[kinds[name]]
            assert settings is not None and load(settings, path).loop.steps


def test_trained_parts_become_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ImageBART(FirstStage(tiny_first_stage())).save_pretrained(tmp_path / "first")
    trained = {"loop": {"steps": 1, "batch_size": 2, "warmup": 0}, "shape": SHAPE.model_dump(), "text_length": 60}
    paths = {"first_stage": str(tmp_path / "first"), "text_from": str(tmp_path / "captions")}
    model = {"first_stage": paths["first_stage"], "denoiser": str(tmp_path / "denoiser"), "about": {"name": "tiny"}}
    configs = {"captions": trained, "denoiser": {**trained, **paths, "data": "avatars"}, "model": model}
    for name, values in configs.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(values))
        command = ["assemble", "--out"] if name == "model" else ["train", name, "--run"]
        assert avatars_main([*command, str(tmp_path / name), "--config", str(tmp_path / f"{name}.json")]) == 0
    pipe = Pipeline.from_pretrained(tmp_path / "model")
    assert pipe.name == "tiny" and pipe.model.conditioner == avatar_conditioner(60)
    (tmp_path / "faces.json").write_text(json.dumps(configs["denoiser"] | {"data": "faces"}))
    for given, said in (
        (["denoiser", "--config", str(tmp_path / "faces.json")], "expected 'avatars' or 'avatar edits'"),
        (["nose"], "There is no part 'nose'; there are first-stage"),
        (["classifier"], "--config is missing"),
    ):
        assert avatars_main(["train", *given, "--run", str(tmp_path / "other")]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.release
def test_a_model_is_measured_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out, grids = tmp_path / "model", tmp_path / "deep" / "figures.json", tmp_path / "grids"
    save_model_with_scorer(model)
    options = ["--model", str(model), "--samples", "6", "--out", str(out), "--grids", str(grids)]
    assert avatars_main(["evaluate", *options]) == 0
    assert "| strokes: as asked |" in capsys.readouterr().out
    measured = {m["name"]: m for m in json.loads(out.read_text())["measures"]}
    assert all(m["low"] <= m["value"] <= m["high"] for m in measured.values())
    assert measured["no pixel changed outside the mask"]["value"] == 1
    assert {path.name for path in grids.iterdir()} == {"painted.webp", "prompts.webp"}


@pytest.mark.release
def test_the_shipped_examples_are_written(tmp_path: Path) -> None:
    assert avatars_main(["examples", "--out", str(tmp_path)]) == 0
    for path in (ROOT / "checkpoints" / "avatars" / "examples").iterdir():
        made = tmp_path / path.name
        if path.suffix == ".txt":
            assert made.read_text() == path.read_text()
        else:
            assert (np.asarray(Image.open(made)) == np.asarray(Image.open(path))).all()


# Things.


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
    drawn, again = ([scenes.sample(number) for number in range(200)] for _ in range(2))
    assert drawn == again and len(set(drawn)) > 190
    for scene in drawn:
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
        scene = scenes.sample(number, 3, SceneOptions(colored=0.3))
        said = scenes.describe(scene, generator(number, 3, 7))
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
    image = artwork.render(Scene(Ground("white", "blue", horizon=9), (thing,)))
    assert image.shape == (SIZE, SIZE, 3)
    assert (tuple(image[0, 0]), tuple(image[-1, -1])) == (GROUNDS["white"], GROUNDS["blue"])
    mask = np.zeros((SIZE, SIZE), bool)
    mask[thing.pixels] = sprite(0, "", 6 * CELL)[..., 3] > 127
    assert np.percentile(np.abs(image[mask].astype(int) - (220, 30, 40)), 90) < 8  # all but its edge
    assert mask.any(0).sum() == pytest.approx(0.94 * 6 * CELL, abs=2)
    outside = np.ones_like(mask)
    outside[thing.pixels] = False  # its shadow lies in its box
    empty = artwork.render(Scene(Ground("white", "blue", horizon=9)))
    assert (image[outside] == empty[outside]).all()
    shadow = ~outside & ~mask & (image.sum(2) < empty.sum(2) - 20)
    assert shadow.any() and shadow[: 8 * CELL].sum() < 0.2 * shadow.sum()  # below the thing
    color = artwork.render(Scene(Ground("white", "white"), (Placed(0, "blue", 4, 4, 8),)))[128, 128].astype(int)
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
def test_a_model_of_things_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first_stage = FirstStage(tiny_first_stage(resolution=SIZE, pixel_unshuffle=CELL, multipliers=(1,), encoder="patch"))
    model, words = tmp_path / "model", conditioner()
    shape = SHAPE.replace(query_tokens=9)
    config = denoiser_config(shape, first_stage.config, words, text_config(shape, words))
    ImageBART(first_stage, Denoiser(config), words).save_pretrained(model)
    save_detector(ThingDetector(len(NOUNS), len(COLORS), width=8), NAMES, model / "detector.safetensors")
    measured = ["evaluate", "--model", str(model), "--samples", "6", "--out", str(tmp_path / "figures.json")]
    assert things_main(measured) == 0
    values = {m["name"]: m["value"] for m in json.loads((tmp_path / "figures.json").read_text())["measures"]}
    assert values["no pixel changed outside the mask"] == 1
    assert values["outlines and rectangles at any place: the thing asked for"] < 0.5  # nothing was trained
    (model / "detector.safetensors").unlink()
    assert things_main(measured) == 2
    assert "has no detector of things" in capsys.readouterr().err


# Still lifes.


def photograph(middle: tuple[int, int, int], around: tuple[int, int, int], size: tuple[int, int]) -> bytes:
    image, file = Image.new("RGB", size, around), io.BytesIO()
    image.paste(middle, (size[0] // 4, size[1] // 4, size[0] * 3 // 4, size[1] * 3 // 4))
    image.save(file, "JPEG", quality=95)
    return file.getvalue()


def archive(folder: Path, kind: str, contents: dict[str, bytes]) -> str:
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return shutil.make_archive(str(folder), kind, folder)


def test_archives_become_a_folder_with_captions_and_credits(tmp_path: Path) -> None:
    carrot = photograph((240, 120, 10), (120, 120, 120), (348, 348))
    flowers = {
        "flower_photos/roses/1.jpg": photograph((200, 10, 10), (20, 140, 20), (600, 300)),
        "flower_photos/daisy/3.jpg": photograph((250, 250, 250), (9, 9, 9), (300, 400)),
        "flower_photos/LICENSE.txt": b"head\nroses/1.jpg CC-BY by Ann - Lee - https://www.flickr.com/photos/1/\n",
    }
    groceries = {
        "G-master/dataset/train/Vegetables/Carrots/Carrots_001.jpg": carrot,
        "G-master/dataset/iconic-images-and-descriptions/Fruit/Kiwi/Kiwi_Iconic.jpg": carrot,
        "G-master/dataset/train/Packages/Milk/Milk_001.jpg": carrot,
    }
    archives = archive(tmp_path / "f", "gztar", flowers), archive(tmp_path / "g", "zip", groceries)
    app, out = Typer(), tmp_path / "out"
    app.command()(get_photographs)
    assert CliRunner().invoke(app, [str(out), "--flowers", archives[0], "--groceries", archives[1]]).exit_code == 0
    rows = {row["text"]: row for row in map(json.loads, (out / "metadata.jsonl").read_text().splitlines())}
    assert set(rows) == {"red roses, green background", "white daisies, dark background", "carrots"}
    assert rows["red roses, green background"]["author"] == "Ann - Lee"
    sizes = {path.name: Image.open(path).size for path in out.rglob("*.webp")}
    assert sizes == {"flower-1.webp": (213, 160), "flower-3.webp": (160, 213), "produce-Carrots_001.webp": (160, 160)}
