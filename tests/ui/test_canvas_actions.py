"""What comes onto the canvas: uploads, examples, results, ready masks; and the way back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from desk import controls, edited, noise, opened, painted, told
from PIL import Image, PngImagePlugin

from imagebart.masks import preset
from imagebart.metadata import Recipe, write_png
from imagebart.settings import SamplingSettings
from imagebart.testing import tiny_pipeline
from imagebart.ui.canvas_actions import PLACED, RESTORED, CanvasActions
from imagebart.ui.choice import Choice
from imagebart.ui.examples import find_examples
from imagebart.ui.picture import BRUSH_OPACITY, Picture, on_canvas, to_editor
from imagebart.ui.running import Running
from imagebart.ui.trail import Trail

pytestmark = pytest.mark.usefixtures("own_files")
PIPELINE = tiny_pipeline()
UPLOADED = (*PLACED, *RESTORED)


@pytest.fixture(scope="module")
def actions(tmp_path_factory: pytest.TempPathFactory) -> CanvasActions:
    folder = tmp_path_factory.mktemp("examples")
    noise((40, 40)).save(folder / "1-first.png")
    noise((64, 48), 1).save(folder / "2-second.png")
    preset("left half", (64, 48)).save(folder / "2-second.mask.png")
    (folder / "2-second.txt").write_text("a hat\n")
    return CanvasActions(Choice(PIPELINE), find_examples(folder))


def event(index: int) -> gr.SelectData:
    return gr.SelectData(None, {"index": index, "value": None})


def desk(picture: Picture | None, area: str | None = None, trail: Trail | None = None, words: str = "") -> list[Any]:
    canvas = None if picture is None else to_editor(picture) if area is None else painted(picture, area)
    return [canvas, picture, trail, words]


def placed(updates: list[Any]) -> dict[str, Any]:
    return told(updates, PLACED)


def mask_of(changes: dict[str, Any], picture: Picture) -> np.ndarray:
    """Where the canvas that an action gives is painted, bool in the canvas's pixels."""
    layers = [opened(path) for path in changes["editor"]["layers"]]
    _, mask = on_canvas({"background": picture.view, "layers": layers, "composite": None}, picture)
    return np.zeros(picture.view.size[::-1], bool) if mask is None else np.asarray(mask) > 0


def expected(picture: Picture, area: str) -> np.ndarray:
    _, mask = on_canvas(painted(picture, area), picture)
    return np.asarray(mask) > 0


def test_an_upload_is_kept_as_it_is(actions: CanvasActions, picture: Picture) -> None:
    changes = told(actions.upload(picture.path, None, *desk(None)), UPLOADED)
    assert changes["picture"].image == picture.image and opened(changes["editor"]["background"]) == picture.view
    assert 'data-width="37"' in changes["facts"] and not changes["undo"]["interactive"]
    assert not set(RESTORED) & set(changes)


@pytest.mark.parametrize(("content", "said"), [(b"not a picture", "can be read"), (b"", "empty"), (None, "damaged")])
def test_a_bad_upload_is_said_and_changes_nothing(
    actions: CanvasActions, tmp_path: Path, picture: Picture, content: bytes | None, said: str
) -> None:
    path = tmp_path / "bad.png"
    if content is None:
        noise((64, 64)).save(path)
        content = path.read_bytes()[:2000]
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=said):
        assert told(actions.upload(str(path), None, *desk(picture)), UPLOADED) == {}


def test_a_picture_made_here_brings_back_its_prompt_seed_and_settings(actions: CanvasActions, tmp_path: Path) -> None:
    path = tmp_path / "made.png"
    settings = SamplingSettings(temperature=0.7, top_k=20, top_p=None, guidance=3.0, passes=2, start=1)
    recipe = Recipe("tiny", "edit", "a red hat", 11, settings, feather=3, context=0.5, variant=2)
    write_png(noise((32, 32)), path, recipe)
    changes = told(actions.upload(str(path), "tiny", *desk(None)), UPLOADED)
    names = ("words", "seed", "new_seed", "temperature", "top_k", "top_p", "guidance", "passes", "start", "feather")
    values = ("a red hat", 13, False, 0.7, 20, 1, 3.0, 2, 1, 3)
    assert tuple(changes[name] for name in names) == values and changes["context"] == 0.5
    assert "made here" in changes["messages"] and "another model" not in changes["messages"]
    write_png(noise((32, 32)), path, replace(recipe, model="elsewhere", settings=SamplingSettings(guidance=99)))
    changes = told(actions.upload(str(path), "tiny", *desk(None)), UPLOADED)
    assert "elsewhere" in changes["messages"] and changes["guidance"] == 8  # what the slider can hold


def test_a_damaged_recipe_is_said_and_the_picture_is_taken(actions: CanvasActions, tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("imagebart", '{"seed": "many"}')
    noise((32, 32)).save(tmp_path / "odd.png", pnginfo=text)
    with pytest.warns(UserWarning, match="recipe"):
        changes = told(actions.upload(str(tmp_path / "odd.png"), None, *desk(None)), UPLOADED)
    assert changes["picture"].image.size == (32, 32) and "seed" not in changes


def test_an_example_brings_its_mask_where_it_belongs_and_its_prompt(actions: CanvasActions, picture: Picture) -> None:
    changes = placed(actions.example(event(1), *desk(picture)))
    example = changes["picture"]
    assert example.image.size == (64, 48) and changes["words"] == "a hat"
    assert (mask_of(changes, example) == expected(example, "left half")).all()
    assert changes["undo"]["interactive"]
    assert "words" not in placed(actions.example(event(0), *desk(picture)))


def test_the_page_opens_on_the_first_example(actions: CanvasActions) -> None:
    changes = placed(actions.open())
    assert changes["picture"].image.size == (40, 40) and "trail" not in changes


@pytest.mark.parametrize("area", ["upper half", "lower half", "left half", "right half", "border", "everything"])
def test_a_ready_mask_replaces_what_is_painted(actions: CanvasActions, picture: Picture, area: str) -> None:
    changes = placed(actions.ready_mask(area, *desk(picture, "centre")))
    assert (mask_of(changes, picture) == expected(picture, area)).all()


def test_a_mask_is_inverted_grown_and_shrunk(actions: CanvasActions, picture: Picture) -> None:
    before = expected(picture, "centre")
    inverted, grown, shrunk = (
        mask_of(placed(action(*desk(picture, "centre"))), picture)
        for action in (actions.invert, actions.grow, actions.shrink)
    )
    assert (inverted == ~before).all()
    assert before[grown].sum() == before.sum() < grown.sum() and shrunk.sum() < before[shrunk].sum() + 1 <= before.sum()
    # By a 32nd of the canvas's longer side: 16 of its 512 pixels.
    rows = [np.flatnonzero(mask.any(1)) for mask in (before, grown, shrunk)]
    assert rows[0][0] - rows[1][0] == 16 == rows[2][0] - rows[0][0]


def test_invert_paints_everything_where_nothing_is_painted(actions: CanvasActions, picture: Picture) -> None:
    assert mask_of(placed(actions.invert(*desk(picture))), picture).all()


def test_growing_nothing_is_said(actions: CanvasActions, picture: Picture) -> None:
    with pytest.warns(UserWarning, match="Nothing is painted"):
        assert placed(actions.grow(*desk(picture))) == {}


def test_the_last_mask_can_be_used_again_on_another_picture_of_its_shape(
    actions: CanvasActions, picture: Picture
) -> None:
    other = Picture.of(noise((74, 100)))
    moments = map(told, Running(Choice(PIPELINE)).edit(painted(picture), picture, None, *controls(PIPELINE)))
    remembered = next(moment["last_mask"] for moment in moments if "last_mask" in moment)
    changes = placed(actions.last_mask(remembered, *desk(other)))
    assert (mask_of(changes, other) == expected(other, "upper half")).mean() > 0.99
    with pytest.warns(UserWarning, match="same shape"):
        assert placed(actions.last_mask(remembered, *desk(Picture.of(noise((200, 40)))))) == {}
    with pytest.warns(UserWarning, match="no last mask"):
        assert placed(actions.last_mask(None, *desk(picture))) == {}


def test_an_uploaded_mask_of_another_shape_is_said(actions: CanvasActions, picture: Picture, tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.new("L", (100, 20), 255).save(path)
    with pytest.warns(UserWarning, match="same shape"):
        assert placed(actions.upload_mask(str(path), *desk(picture))) == {}


def test_clearing_takes_the_paint_and_leaves_the_picture(actions: CanvasActions, picture: Picture) -> None:
    changes = placed(actions.clear_mask(*desk(picture, "centre")))
    assert changes["editor"]["layers"] == [] and changes["picture"] is picture
    emptied = [{"background": None, "layers": [], "composite": None}, picture, None, ""]
    assert opened(placed(actions.clear_mask(*emptied))["editor"]["background"]) == picture.view


def test_nothing_happens_to_the_mask_of_no_picture(actions: CanvasActions) -> None:
    with pytest.warns(UserWarning, match="no picture"):
        assert placed(actions.invert(*desk(None))) == {}


def test_a_result_or_a_step_can_be_edited_further(actions: CanvasActions, picture: Picture) -> None:
    last = edited(picture)
    steps = len(last["record"].of_variant())
    result = placed(actions.resume(last["record"], steps, *desk(picture)))["picture"]
    assert result.image.tobytes() == opened(last["preview"]).tobytes()
    before, early = (np.asarray(image) for image in (picture.image, _step(actions, last["record"], picture)))
    assert (early[27:] == before[27:]).all() and (early[:23] != np.asarray(result.image)[:23]).any()


def _step(actions: CanvasActions, record: Any, picture: Picture) -> Image.Image:
    return placed(actions.resume(record, 1, *desk(picture)))["picture"].image


def test_undo_and_redo_walk_through_pictures_masks_and_prompts(actions: CanvasActions, picture: Picture) -> None:
    first = placed(actions.example(event(1), *desk(picture, "centre", words="a beard")))
    second = first["picture"]
    back = placed(actions.undo(*desk(second, "left half", first["trail"], "a hat")))
    assert back["picture"].image == picture.image and back["words"] == "a beard"
    assert (mask_of(back, picture) == expected(picture, "centre")).all()
    assert not back["undo"]["interactive"] and back["redo"]["interactive"]
    forth = placed(actions.redo(*desk(picture, "centre", back["trail"], "a beard")))
    assert forth["picture"].image == second.image and forth["words"] == "a hat"
    assert (mask_of(forth, second) == expected(second, "left half")).all()
    assert placed(actions.redo(*desk(second, None, forth["trail"]))) == {}


def test_an_earlier_result_comes_back_and_one_that_was_deleted_is_said(
    actions: CanvasActions, picture: Picture
) -> None:
    last = edited(picture)
    changes = placed(actions.result(event(0), last["results"], *desk(picture)))
    assert changes["picture"].image.tobytes() == opened(last["preview"]).tobytes()
    Path(last["preview"]).unlink()
    with pytest.warns(UserWarning, match="no longer kept"):
        assert placed(actions.result(event(0), last["results"], *desk(picture))) == {}


def test_a_mask_on_the_canvas_is_translucent(actions: CanvasActions, picture: Picture) -> None:
    layer = opened(placed(actions.ready_mask("everything", *desk(picture)))["editor"]["layers"][0])
    assert layer.getchannel("A").getextrema() == (round(255 * BRUSH_OPACITY),) * 2
