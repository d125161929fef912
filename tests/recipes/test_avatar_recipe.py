"""The recipe of avatars: captions are true, renders are what the set draws, parts become a model."""

import json
import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import binomial_z
from PIL import Image
from tiny_models import save_model_with_scorer, tiny_first_stage

from imagebart.model import ImageBART
from imagebart.models.vqgan import FirstStage
from imagebart.pipeline import Pipeline
from imagebart.text.conditioners import TextConditioner
from imagebart.training.config import StageShape, load
from imagebart.weights.folder import read_config
from imagebart.worlds.attribute_classifier import GROUPS, claims_vector
from imagebart.worlds.avatars import VALUES
from recipes.avatars.__main__ import main
from recipes.avatars.artwork import BACKGROUNDS, part_svg, parts, rasterise, render
from recipes.avatars.captions import all_words, avatar_conditioner
from recipes.avatars.dataset import HELD_OUT_PAIRS, avatar_item, caption, edit_item, held_out, sample
from recipes.avatars.training import TRAININGS, reading_accuracy, reading_loss
from recipes.things.training import TRAININGS as THINGS

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "checkpoints" / "avatars"
SHAPE = StageShape(width=32, depth=1, heads=2, head_size=16, encoder_depth=1, query_tokens=14)


@pytest.mark.shipped
def test_the_shipped_model_reads_the_words_of_this_recipe() -> None:
    assert read_config(SHIPPED / "config.json").conditioner == avatar_conditioner(77)


def test_prompts_of_new_users_are_read() -> None:
    words, notes = (
        avatar_conditioner(77),
        {
            "purple afro": "There is no purple hair here; pink is the nearest.",
            "v neck, orange": "There is no orange clothing here; yellow is the nearest.",
            "brown background": "There is no brown background here; orange is the nearest.",
            "blue eyes": "There is no blue eye color here; the color was left out.",
            "old": '"old" was read as "grey-haired".',
            "old man with a red beanie": 'This model does not know: "old". It was ignored.',
            "old woman with black hair": 'This model does not know: "old". It was ignored.',
            "blone har": '"blone" was read as "blonde", "har" as "hair".',
            "pnk hair, rde hta": '"pnk" was read as "pink", "rde" as "red", "hta" as "hat".',
            "green mohawk": 'This model does not know: "green mohawk". It was ignored.',
        },
    )
    assert {prompt: words.encode([prompt]).notes for prompt in notes} == {key: [note] for key, note in notes.items()}
    plain = ["specs", "ginger woman with a bob", "batman t shirt", "frizzy hair", "purple wall", "T-Shirt", "v neck"]
    assert words.encode([*plain, "vneck", "v-neck", "orange hair", "white guy in a suit"]).notes == []


def test_captions_are_true_and_read_as_they_are() -> None:
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
    for recipe, trainings in (("avatars", TRAININGS), ("things", THINGS)):
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
    configs["faces"] = configs["denoiser"] | {"data": "faces"}

    def run(command: str, name: str, *more: str) -> int:
        return main([*command.split(), "--config", str(tmp_path / f"{name}.json"), *more])

    for name, values in configs.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(values))
    for part in ("captions", "denoiser"):
        assert run(f"train {part}", part, "--run", str(tmp_path / part)) == 0
    assert run("assemble", "model", "--out", str(tmp_path / "model")) == 0
    pipe = Pipeline.from_pretrained(tmp_path / "model")
    assert pipe.name == "tiny" and pipe.model.conditioner == avatar_conditioner(60)
    for given, said in (
        (["train", "denoiser", "--config", str(tmp_path / "faces.json")], "expected 'avatars' or 'avatar edits'"),
        (["train", "nose"], "There is no part 'nose'; there are first-stage"),
        (["train", "classifier"], "--config is missing"),
    ):
        assert main([*given, "--run", str(tmp_path / "other")]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.release
def test_a_model_is_measured_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out, grids = tmp_path / "model", tmp_path / "deep" / "figures.json", tmp_path / "grids"
    save_model_with_scorer(model)
    options = ["--model", str(model), "--samples", "6", "--out", str(out), "--grids", str(grids)]
    assert main(["evaluate", *options]) == 0
    assert "| strokes: as asked |" in capsys.readouterr().out
    measured = {m["name"]: m for m in json.loads(out.read_text())["measures"]}
    assert all(m["low"] <= m["value"] <= m["high"] for m in measured.values())
    assert measured["no pixel changed outside the mask"]["value"] == 1
    assert {path.name for path in grids.iterdir()} == {"painted.webp", "prompts.webp"}


@pytest.mark.release
def test_the_shipped_examples_are_written(tmp_path: Path) -> None:
    assert main(["examples", "--out", str(tmp_path)]) == 0
    for path in (SHIPPED / "examples").iterdir():
        made = tmp_path / path.name
        if path.suffix == ".txt":
            assert made.read_text() == path.read_text()
        else:
            assert (np.asarray(Image.open(made)) == np.asarray(Image.open(path))).all()
