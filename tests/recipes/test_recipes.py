"""The recipes: captions are true and read, images are what is said of them, parts become a model that is measured."""

import io
import json
import re
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import binomial_z
from PIL import Image
from tiny_models import save_model_with_scorer, tiny_first_stage
from typer import Typer
from typer.testing import CliRunner

from imagebart.model import ImageBART
from imagebart.models.vqgan import FirstStage
from imagebart.pipeline import Pipeline
from imagebart.text.conditioners import TextConditioner
from imagebart.training.config import StageShape, load
from imagebart.weights.folder import read_config
from imagebart.worlds.attribute_classifier import GROUPS, claims_vector
from imagebart.worlds.avatars import VALUES
from imagebart.worlds.things import load_detector
from recipes.avatars.__main__ import main as avatars_main
from recipes.avatars.artwork import BACKGROUNDS, part_svg, parts, rasterise, render
from recipes.avatars.captions import all_words, avatar_conditioner
from recipes.avatars.dataset import HELD_OUT_PAIRS, avatar_item, caption, edit_item, held_out, sample
from recipes.avatars.training import TRAININGS as AVATAR_TRAININGS
from recipes.avatars.training import reading_loss
from recipes.still_life.photographs import main as get_photographs
from recipes.things.__main__ import TRAININGS as THING_TRAININGS
from recipes.things.denoiser import conditioner
from recipes.things.detector import NAMES

ROOT = Path(__file__).parents[2]
SHAPE = StageShape(width=32, depth=1, heads=2, head_size=16, encoder_depth=1, query_tokens=14)


@pytest.mark.shipped
def test_the_shipped_models_read_the_words_of_their_recipes() -> None:
    for recipe, words in (("avatars", avatar_conditioner(77)), ("things", conditioner(16))):
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
        difference = np.abs(render(avatar, 128).astype(int) - np.asarray(whole)[..., :3])
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
    """In float64."""
    readings, losses = torch.randn(3, sum(GROUPS)), []
    claims = torch.stack([claims_vector(caption(number).claims) for number in (5, 6, 7)])
    for row, flags in zip(readings.double().numpy(), claims.numpy(), strict=True):
        for part, allowed in zip(*(np.split(values, np.cumsum(GROUPS)[:-1]) for values in (row, flags)), strict=True):
            losses.append(np.log(np.exp(part).sum()) - part[allowed].mean())
    assert reading_loss(readings, claims).item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_every_configuration_is_read() -> None:
    kinds = {"decoder": "first-stage", "decoder256": "first-stage", "first": "first-stage", "scorer": "classifier"}
    for recipe, trainings in (("avatars", AVATAR_TRAININGS), ("things", THING_TRAININGS)):
        for path in (ROOT / "recipes" / recipe / "configs").glob("[!m]*.json"):
            name = path.stem if path.stem in trainings else path.stem.split("-")[0]
            settings, _ = trainings.get(name) or trainings[kinds[name]]
            assert (loop := load(settings, path).loop) and (loop.steps or loop.hours)


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
        (["nose", "--config", str(tmp_path / "faces.json")], "There is no part 'nose'; there are first-stage"),
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
