"""The page's runs, on a tiny random model without a browser."""

from __future__ import annotations

import gc
from types import GeneratorType
from typing import Any

import numpy as np
import pytest
from desk import controls, edited, noise, opened, painted, run, told

from imagebart.metadata import read_recipe
from imagebart.testing import tiny_pipeline
from imagebart.ui import frame, wording
from imagebart.ui.choice import Choice
from imagebart.ui.frame import Frame
from imagebart.ui.picture import Picture, to_editor
from imagebart.ui.running import MOST_RESULTS, Running

pytestmark = pytest.mark.usefixtures("own_files")
PIPELINE = tiny_pipeline()


@pytest.fixture(scope="module")
def running() -> Running:
    return Running(Choice(PIPELINE))


def asked(**values: Any) -> list[Any]:
    return controls(PIPELINE, **values)


def test_an_edit_ends_with_a_result_whose_unpainted_pixels_are_the_upload_s(picture: Picture) -> None:
    last = edited(picture)
    before, after = np.asarray(picture.image), np.asarray(opened(last["preview"]))
    assert after.shape == before.shape
    assert (after[27:] == before[27:]).all() and (after[:23] != before[:23]).any()
    assert last["record"].results == (last["preview"],) and last["seed"] == 7


def test_an_edit_shows_noise_then_each_stage(picture: Picture) -> None:
    last = edited(picture)
    assert [caption for _, caption in last["strip"]] == ["noise", "coarse", "fine"]
    assert [opened(path).size for path, _ in last["strip"]] == [picture.image.size] * 3
    before, after = (opened(path) for path in last["comparison"])
    assert before == picture.image and after.tobytes() == opened(last["preview"]).tobytes()
    assert "Done" in last["progress"] and "ready" in last["announcement"]


def test_the_scrubber_ends_at_the_result(picture: Picture) -> None:
    last = edited(picture)
    steps = last["record"].of_variant()
    assert last["scrubber"]["maximum"] == last["scrubber"]["value"] == len(steps) >= 3
    assert f"Step {len(steps)} of {len(steps)}" in last["step_line"]


def test_buttons_follow_the_run(running: Running, picture: Picture) -> None:
    moments = run(running.edit(painted(picture), picture, None, *asked()))
    for name in frame.STARTERS:
        assert not moments[0][name]["interactive"] and moments[-1][name]["interactive"]
    assert moments[0]["cancel"]["interactive"] and not moments[-1]["cancel"]["interactive"]
    for name in frame.FOLLOWERS:
        assert name not in moments[0] and moments[-1][name]["interactive"]
    assert moments[-1]["download"]["value"] == moments[-1]["preview"]


def test_variants_come_from_one_run_and_differ(running: Running, picture: Picture) -> None:
    moments = run(running.edit(painted(picture), picture, None, *asked(variants=3)))
    gallery = moments[-1]["variant_gallery"]
    assert gallery["visible"] and [name for _, name in gallery["value"]] == ["Variant 1", "Variant 2", "Variant 3"]
    results = [opened(path) for path in moments[-1]["record"].results]
    assert len({image.tobytes() for image in results}) == 3
    # Before the end, all are shown on one sheet.
    assert {opened(moment["preview"]).width > picture.image.width for moment in moments[1:-1]} == {True}


def test_one_picture_needs_no_gallery(picture: Picture) -> None:
    assert not edited(picture)["variant_gallery"]["visible"]


def test_a_kept_seed_repeats_and_a_new_one_does_not(picture: Picture) -> None:
    def result(**seed: Any) -> tuple[int, bytes]:
        last = edited(picture, **seed)
        return last["seed"], opened(last["preview"]).tobytes()

    fresh = result(new_seed=True)
    assert result(seed=float(fresh[0])) == fresh
    assert result(new_seed=True)[0] != fresh[0]


def test_a_result_says_how_it_was_made(picture: Picture) -> None:
    recipe = read_recipe(edited(picture, words="a hat", temperature=0.8, variants=2)["record"].results[1])
    assert recipe is not None and (recipe.task, recipe.prompt, recipe.variant) == ("edit", "a hat", 1)
    assert recipe.settings.temperature == 0.8 and recipe.own_seed == 8


def test_the_mask_of_an_edit_is_remembered(running: Running, picture: Picture) -> None:
    moments = run(running.edit(painted(picture), picture, None, *asked()))
    masks = [moment["last_mask"] for moment in moments if "last_mask" in moment]
    assert len(masks) == 1 and masks[0].startswith(b"\x89PNG")


def test_results_are_kept_and_the_oldest_is_forgotten(running: Running) -> None:
    results: Any = None
    for seed in range(3):
        last = run(running.generate(results, *asked(seed=seed, variants=4, words=f"hat {seed}")))[-1]
        results = last["results"]
    last = run(running.generate(results, *asked(seed=9, words="")))[-1]
    captions = [caption for _, caption in last["results_gallery"]]
    assert len(captions) == MOST_RESULTS and captions[-1] == "New picture" and captions[0] == "New picture: hat 0"
    assert captions.count("New picture: hat 0") == 3


def test_unknown_words_are_told(picture: Picture) -> None:
    assert "zebra" in edited(picture, words="zebra hat")["messages"]


def test_no_mask_is_said_and_offers_the_ready_masks(running: Running, picture: Picture) -> None:
    with pytest.warns(UserWarning, match="Nothing is painted"):
        moments = run(running.edit(to_editor(picture), picture, None, *asked()))
    assert len(moments) == 1 and "ready masks" in moments[0]["messages"]
    assert "record" not in moments[0] and "preview" not in moments[0]


def test_no_picture_is_said(running: Running) -> None:
    for updates in (running.edit(None, None, None, *asked()), running.vary(None, None, None, *asked())):
        with pytest.warns(UserWarning, match="no picture"):
            assert run(updates)[0]["messages"] == wording.problem_html(wording.NO_PICTURE)


def test_a_seed_out_of_range_is_said_and_the_page_is_ready_again(running: Running) -> None:
    with pytest.warns(UserWarning, match="seed"):
        moments = run(running.generate(None, *asked(seed=-1)))
    assert "seed is -1" in moments[-1]["messages"] and moments[-1]["edit"]["interactive"]


def test_a_model_that_is_not_there_is_said(running: Running) -> None:
    # With no folder of models there is only the first, whatever a stale page asks for.
    moments = run(running.generate(None, *asked(model="gone")))
    assert "record" in moments[-1]


def test_generate_and_vary_give_results(running: Running, picture: Picture) -> None:
    generated = run(running.generate(None, *asked()))[-1]
    assert opened(generated["preview"]).size == (32, 32) and generated["comparison"]["value"] is None
    varied = run(running.vary(to_editor(picture), picture, None, *asked(strength=0.4)))[-1]
    assert opened(varied["preview"]).size == picture.image.size
    assert varied["record"].recipe.strength == 0.4


def test_a_later_start_runs_fewer_stages(running: Running, picture: Picture) -> None:
    moments = run(running.edit(painted(picture), picture, None, *asked(start=1)))
    assert [caption for _, caption in moments[-1]["strip"]] == ["start", "fine"]


def test_the_context_reaches_the_model(running: Running) -> None:
    # A large picture painted in one corner: with little context the model sees the corner alone.
    wide = Picture.of(noise((512, 512)))
    corner = to_editor(wide)
    corner["layers"] = [to_editor(wide, _corner())["layers"][0]]
    totals = []
    for context in (0.25, 3.0):
        moments = run(running.edit(corner, wide, None, *asked(context=context)))
        totals.append(moments[1]["progress"].split(" of ")[3].split()[0])
    assert int(totals[0]) > int(totals[1])


def _corner() -> Any:
    mask = noise((512, 512)).convert("L").point(lambda _: 0)
    mask.paste(255, (0, 0, 100, 100))
    return mask


def test_closing_a_run_ends_the_model_s_work(running: Running, picture: Picture) -> None:
    updates = running.edit(painted(picture), picture, None, *asked())
    for _ in range(3):
        next(updates)
    assert working()
    updates.close()  # type: ignore[attr-defined]
    assert not working()


def working() -> int:
    """How many of the model's chains are alive."""
    return sum(
        type(found) is GeneratorType and found.gi_code.co_name == "stream" and found.gi_frame is not None
        for found in gc.get_objects()
    )


def test_a_frame_changes_only_what_it_names() -> None:
    assert told(Frame(progress="half").updates()) == {"progress": "half"}


def test_a_waiting_page_can_only_be_cancelled() -> None:
    waiting = told(frame.waiting())
    assert waiting["cancel"]["interactive"] and not waiting["edit"]["interactive"]
    assert "Waiting" in waiting["progress"]


def test_a_broken_run_is_said_in_a_sentence_and_the_page_is_ready_again() -> None:
    broken = told(frame.stopped("asked"))
    assert "try again" in broken["messages"] and broken["edit"]["interactive"]
    assert not {"preview", "record", "results"} & set(broken)


def test_a_cancelled_run_is_not_called_broken() -> None:
    after = told(frame.stopped("cancelled"))
    assert "Cancelled" in after["messages"] and after["edit"]["interactive"]
