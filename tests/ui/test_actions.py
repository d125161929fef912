"""The page's actions on a tiny random model, without a browser: runs, Cancel and questions."""

import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import gradio as gr
import numpy as np
import pytest
from fake_models import HAT_TOKENS, FixedDescriber, LightnessScorer, WatchedPipeline, hat_model
from page_values import control_values, noise_image, open_image, sketch_value
from PIL import Image
from tiny_models import tiny_model, tiny_pipeline
from torch import Tensor

from imagebart.fitting import ELSEWHERE
from imagebart.imaging.files import read_recipe
from imagebart.imaging.masks import preset
from imagebart.pipeline import MISSED, Pipeline
from imagebart.ui import messages
from imagebart.ui.actions import MAX_CANCELLED, MAX_CHECKED, MAX_PREVIEWS, Actions, RunHistory, Update, answering
from imagebart.ui.endpoints import Endpoints
from imagebart.ui.files import compose, scale_mask, unpack_mask, view_size
from imagebart.ui.models import Models

PIPELINE = tiny_pipeline()
ACTIONS = Actions(Models(PIPELINE))
HAT = np.kron(HAT_TOKENS, np.ones((8, 8))) > 0  # where hats go in an image of 64 x 64 pixels
HAT_PIPELINE = Pipeline(hat_model(), scorer=FixedDescriber("a hat"))
HAT_ACTIONS = Actions(Models(HAT_PIPELINE))
IMAGE, SQUARE = noise_image((37, 50)), noise_image((64, 64))
LOWER = np.asarray(preset("lower half", SQUARE.size)) > 0


@pytest.fixture(autouse=True)
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page writes its images into the test's own folder."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "written"))
    return tmp_path / "written"


def moments(task: str, sketch: Any, pipeline: Pipeline = PIPELINE, **values: Any) -> list[Update]:
    """The updates of a run."""
    return list(Actions(Models(pipeline)).run(task, sketch, **control_values(pipeline, **values)))


def result(moment: Update, variant: int = 0) -> Image.Image:
    return open_image(moment["run"]["results"][variant]["path"])


def test_several_classes_are_edited_the_same_whether_their_mask_was_shown_before_or_not() -> None:
    pipeline = tiny_pipeline("class")
    asked = control_values(pipeline, words="", choice=pipeline.classes[:2])
    value, shown, results = sketch_value(IMAGE), Actions(Models(pipeline)), []
    assert shown.fit({**value, **asked})["mask"]
    for actions in (shown, Actions(Models(pipeline))):
        *_, last = actions.run("edit", value, **asked)
        results.append([result(last, variant).tobytes() for variant in range(2)])
    assert results[0] == results[1]


def test_an_edit_shows_noise_then_each_stage_and_ends_at_a_result_whose_unpainted_pixels_are_the_upload_s() -> None:
    run = moments("edit", sketch_value(IMAGE))
    last, before = run[-1], np.asarray(IMAGE)
    after = np.asarray(result(last))
    assert (after[27:] == before[27:]).all() and (after[:23] != before[:23]).any()
    assert last["seed"] == 7 and last["run"]["box"] == (0, 0, 37, 27)
    assert all(open_image(path).size == IMAGE.size for moment in run[1:-1] for path in moment["run"]["images"])
    assert {moment["run"]["version"] for moment in run[1:]} == {3}
    steps = last["run"]["steps"]
    captions, slots = [step["caption"] for step in steps], [step["slot"] for step in steps]
    assert captions[0].startswith("Noise") and captions[-1] == "The result"
    # Each state has its place in the film, which is known from the start.
    assert {tuple(moment["run"]["film"]) for moment in run[1:]} == {("Noise", "1 of 2", "Image")}
    assert slots == sorted(slots) and set(slots) == {0, 1, 2}
    assert slots[captions.index("Step 1 of 2 (coarsest) done")] == 1
    assert open_image(steps[-1]["shown"][0]).tobytes() == result(last).tobytes()
    assert "Done" in last["progress"] and "ready" in last["announcement"]
    exact = np.asarray(result(moments("edit", sketch_value(IMAGE), exact=True)[-1]))
    assert (exact[25:] == before[25:]).all() and (exact[23:25] != before[23:25]).any()


def test_variants_differ_and_all_of_their_states_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagebart.ui.actions.MAX_KEPT_PIXELS", 1)  # as of a photograph: previews are not kept
    sketch, settings = sketch_value(IMAGE), {"best_first": True, "scales": 4, "corrector_steps": 2}
    last = moments("edit", sketch, variants=4, **settings)[-1]
    assert len({result(last, variant).tobytes() for variant in range(4)}) == 4
    recipes = [read_recipe(described["path"]) for described in last["run"]["results"]]
    assert [recipe.variant for recipe in recipes if recipe] == [0, 1, 2, 3]
    for variant in range(4):
        seen = {step["slot"] for step in last["run"]["steps"] if step["shown"][variant]}
        assert len(seen) == len(last["run"]["film"]) == 6


def test_the_best_come_first_each_with_its_own_steps_and_recipe() -> None:
    judged = Pipeline(tiny_model(), scorer=LightnessScorer(-1))
    as_drawn, ordered = (
        moments("generate", None, judged, seed=5, variants=4, best_first=best)[-1]["run"] for best in (False, True)
    )
    numbers = [made["number"] for made in ordered["results"]]
    light = [np.asarray(open_image(made["path"])).mean() for made in ordered["results"]]
    assert light == sorted(light) and sorted(numbers) == [1, 2, 3, 4] and numbers != [1, 2, 3, 4]
    for place, (number, made) in enumerate(zip(numbers, ordered["results"], strict=True)):
        recipe = read_recipe(made["path"])
        assert recipe is not None and recipe.variant == number - 1 and f"-5-{number}" in made["path"]
        for moment in (0, -1):  # both show all variants
            steps = ordered["steps"][moment]["shown"][place], as_drawn["steps"][moment]["shown"][number - 1]
            assert np.array_equal(*map(open_image, steps))
        previews = [step["shown"][place] for step in ordered["steps"] if "tokens fixed" in step["caption"]]
        assert number == 1 or not any(previews), "previews show the first alone"


def test_a_result_says_how_it_was_made_and_unknown_words_are_named() -> None:
    def made(task: str, sketch: Any, **values: Any) -> tuple[Update, Any]:
        last = moments(task, sketch, **values)[-1]
        return last, read_recipe(last["run"]["results"][0]["path"])

    last, recipe = made("edit", sketch_value(IMAGE), feather=2, words="zebra hat")
    assert (recipe.prompt, recipe.seed, recipe.feather, recipe.remove) == ("zebra hat", 7, 2, False)
    assert "zebra" in last["messages"]
    _, recipe = made("edit", sketch_value(IMAGE) | {"mode": "remove"})
    assert recipe.remove and recipe.prompt is None
    last, recipe = made("vary", sketch_value(IMAGE, None), strength=0.4)
    assert result(last).size == IMAGE.size and recipe.strength == 0.4
    last, recipe = made("generate", None)
    assert result(last).size == (32, 32) and last["run"]["box"] is None and recipe.prompt == "hat"


def test_a_run_says_what_it_may_change_and_changes_nothing_else() -> None:
    for area, movable, expected in ((None, False, HAT), ("lower half", True, HAT), ("lower half", False, LOWER)):
        run = moments("edit", sketch_value(SQUARE, area) | {"movable": movable}, HAT_PIPELINE)
        masks = [moment["run"].get("mask") for moment in run[1:]]
        assert masks[0] == masks[-1] and not any(masks[1:-1]), "at the start and with the result"
        mask = np.asarray(unpack_mask(masks[0], SQUARE.size)) > 0
        changed = (np.asarray(result(run[-1])) != np.asarray(SQUARE)).any(-1)
        assert np.array_equal(mask, expected) and mask[changed].all() and changed.any()
        assert ELSEWHERE not in run[-1]["messages"], "the page says it with a button: see `showOffer`"


class Doubter(LightnessScorer):
    """Sees nothing in any image."""

    def shows(self, squares: Tensor, prompt: str) -> list[bool]:
        return [False] * len(squares)


def test_a_result_that_misses_the_words_may_be_tried_again_as_the_best_of_four_and_then_no_more() -> None:
    doubted = Pipeline(hat_model(), scorer=Doubter())

    def said(task: str, **values: Any) -> str:
        return str(moments(task, sketch_value(SQUARE), doubted, **values)[-1]["messages"])

    for task in ("edit", "generate", "vary"):
        told = said(task, variants=4)
        assert MISSED in told and f'data-again="{task}"' in told
    tried = said("edit", variants=4, best_first=True)
    assert MISSED in tried and "data-again" not in tried and "data-again" in said("edit", best_first=True)
    assert MISSED not in said("edit", words="")


def test_what_cannot_be_edited_is_said() -> None:
    for sketch, values, sentence in (
        ({"mask": ""}, {}, "paint over"),
        ({"mask": "", "mode": "remove"}, {}, "Paint over what should go"),
        ({"mode": "background"}, {"words": " "}, messages.NO_BACKGROUND),
        ({"image": None}, {}, messages.NO_IMAGE),
        ({"mask": f"255 {40 * 40}"}, {}, "another image"),
        ({}, {"model": "gone"}, "no model &#x27;gone&#x27;"),
    ):
        last = moments("edit", sketch_value(IMAGE) | sketch, **values)[-1]
        assert sentence in last["messages"] and set(last["run"]) == {"ended"}


def test_an_image_that_was_deleted_is_asked_for_again() -> None:
    sketch = sketch_value(IMAGE)
    Path(sketch["image"]).unlink()
    last = moments("edit", sketch)[-1]
    assert last["run"]["deleted"] and last["run"]["task"] == "edit" and last["run"]["version"] == 3
    assert "no longer on the server" in last["messages"]


def test_a_disk_that_is_full_is_said_frees_the_model_and_leaves_no_half_image(own_files: Path) -> None:
    pipeline, (soft, hard) = WatchedPipeline(tiny_model()), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))  # no file grows beyond, as on a disk without room
    try:
        last = moments("generate", None, pipeline)[-1]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "disk is full" in last["messages"] and pipeline.running == 0
    assert list(own_files.iterdir()) == []


def test_a_run_over_its_time_is_ended_by_a_sentence() -> None:
    pipeline = WatchedPipeline(tiny_model(), pause=0.05)
    *_, last = Actions(Models(pipeline), 0.1).run("generate", None, **control_values(pipeline))
    assert "longer than the 0.1 seconds that this page allows" in last["messages"] and pipeline.running == 0
    with pytest.raises(gr.Error, match="longer than the 0.1 seconds"):
        list(Endpoints(pipeline, 0.1).generate("a hat"))
    assert pipeline.running == 0


def test_a_step_of_a_large_image_is_whole_again() -> None:
    image = noise_image((700, 600))
    *run, last = PIPELINE.edit(image, preset("center", image.size), "hat", seed=1)
    history, base = RunHistory(True), sketch_value(image)["image"]
    for event in run:
        history.add(event)
    kept = history.finish(last)
    for step, event in zip(kept["steps"], [*run, last], strict=True):
        part = {"base": base, "box": kept["box"], "part": step["parts"][0]}
        assert open_image(compose(part)["image"]["path"]).tobytes() == event.image.tobytes()
        assert max(open_image(step["shown"][0]).size) == 512


def test_long_runs_keep_a_bounded_number_of_steps() -> None:
    first, *_, last = PIPELINE.generate("hat", seed=1)
    preview, history = replace(first, kind="preview", stage=1), RunHistory()
    sent = [history.add(event)["images"][0] for event in [first, *[preview] * 150]]
    kept = history.finish(last)
    assert all(Path(path).is_file() for path in sent), "a slow browser may still ask for them"
    assert MAX_PREVIEWS / 2 <= len(kept["steps"]) - 2 <= MAX_PREVIEWS
    written = {Path(path).name for step in kept["steps"] for path in (*step["shown"], *step["parts"])}
    made = Path(kept["results"][0]["path"])
    assert {path.name for path in made.parent.glob("imagebart-*")} == written | {made.name}


def begin(actions: Actions, name: str) -> Any:
    return actions.run("generate", {"run": name}, **control_values(PIPELINE))


def test_a_run_is_cancelled_by_its_name_before_it_comes_or_on_its_way_and_not_after_its_result() -> None:
    pipeline = WatchedPipeline(tiny_model())
    actions = Actions(Models(pipeline))
    actions.cancel("before")
    (only,) = begin(actions, "before")
    assert only["run"] == {"ended": "before"} and "Cancelled" in only["messages"]
    updates = begin(actions, "on its way")
    shown = [next(updates) for _ in range(3)]
    assert pipeline.running == 1
    actions.cancel("on its way")
    (last,) = updates
    assert shown[-1]["run"]["images"] and last["run"] == {"ended": "on its way"} and "Cancelled" in last["messages"]
    assert pipeline.running == 0
    updates = begin(actions, "after")
    while "results" not in (update := next(updates)).get("run", {}):
        assert "Cancelled" not in update["messages"]
    actions.cancel("after")
    assert list(updates) == [] and update["run"]["run"] == "after"


def test_of_many_names_the_last_ones_are_known() -> None:
    actions = Actions(Models(PIPELINE))
    for number in range(MAX_CANCELLED + 1):
        actions.cancel(f"run {number}")
    for name, cancelled in (("run 0", False), (f"run {MAX_CANCELLED}", True)):
        assert ("ended" in list(begin(actions, name))[-1]["run"]) == cancelled


def question(value: Any, words: str = "", **controls: Any) -> dict[str, Any]:
    """What the sketchpad asks with."""
    return {**(value or {}), **control_values(HAT_PIPELINE, words=words, **controls)}


def fit(value: Any, words: str = "", exact: bool = False, context: float = 3.0) -> dict[str, Any]:
    """What Edit would change, by the model that knows where hats go."""
    return HAT_ACTIONS.fit(question(value, words, exact=exact, context=context))


def test_what_will_change_is_what_the_library_says() -> None:
    for size, area, options in (
        ((90, 61), "center", {}),
        ((90, 61), "center", {"exact": True}),
        ((700, 1300), "upper half", {}),
        ((700, 1300), "center", {"context": 0.25}),
    ):
        sketch = sketch_value(noise_image(size), area)
        answer = fit(sketch, "a hat", **options)
        mask = scale_mask(unpack_mask(sketch["mask"], view_size(size)), size)
        fitted = HAT_PIPELINE.fit_mask(noise_image(size), mask, "a hat", **options)
        shown = np.asarray(scale_mask(fitted.mask, view_size(size)))
        assert np.array_equal(unpack_mask(answer["mask"], view_size(size)), shown)
        assert abs(answer["share"] - 100 * (np.asarray(fitted.mask) > 0).mean()) <= 1


def test_words_find_their_place_move_a_mask_that_nobody_painted_and_leave_a_painted_one() -> None:
    place, lower = fit(sketch_value(SQUARE, None), "a hat")["mask"], sketch_value(SQUARE, "lower half")
    assert fit({**lower, "movable": True}, "a hat")["mask"] == place
    painted = fit(lower, "a hat")
    assert painted["elsewhere"] == place and painted["mask"] == lower["mask"]
    assert "elsewhere" not in fit({**lower, "mode": "remove"}, "a hat")
    assert fit({**lower, "mode": "expand", "movable": True}, "a hat")["mask"] == lower["mask"]


def test_the_background_is_found_by_words_for_it_whatever_is_painted() -> None:
    sketch = {**sketch_value(SQUARE, "lower half"), "mode": "background"}
    found = np.asarray(unpack_mask(fit(sketch, "hat")["mask"], SQUARE.size)) > 0
    assert found[:32, 8:56].all() and found.sum() == 32 * 48, "half a patch more each way"
    assert fit(sketch, "a hat background") == fit(sketch, "hat") and fit(sketch, " ") == {}
    last = moments("edit", sketch, HAT_PIPELINE)[-1]
    assert last["run"]["prompt"] == "a hat background" and last["run"]["box"] == (8, 0, 56, 32)


@pytest.mark.parametrize("size", [(90, 61), (1500, 1100)])
def test_what_is_selected_is_the_library_s_mask_in_the_sketchpad_s_pixels(size: tuple[int, int]) -> None:
    answer = HAT_ACTIONS.select(question(sketch_value(noise_image(size), "center"), "a hat"))
    expected = scale_mask(HAT_PIPELINE.suggest_mask(noise_image(size), "a hat"), view_size(size))
    assert np.array_equal(unpack_mask(answer["mask"], view_size(size)), expected)


def test_an_image_is_described_and_one_that_the_model_does_not_know_is_said_to_be_one() -> None:
    sketch = sketch_value(SQUARE, None)
    assert HAT_ACTIONS.describe(question(sketch)) == {"caption": "a hat"}
    note = ACTIONS.recognize({**sketch, "image": "gone.png", "view": sketch["image"], "model": "tiny"})["note"]
    assert "knows nothing only" in note, "of its small copy"


def test_what_cannot_be_answered_is_a_sentence_and_nothing_is_what_cannot_be_changed_yet() -> None:
    def asked(value: Any, words: str = "a hat") -> tuple[str, bool]:
        answer = anyio.run(answering(HAT_ACTIONS.select, anyio.CapacityLimiter(1)), question(value, words))
        return answer["error"], answer["deleted"]

    sketch, deleted = sketch_value(SQUARE, None), sketch_value(SQUARE)
    said, is_deleted = asked(sketch, "zzqx")
    assert "no word of" in said and not is_deleted
    Path(deleted["image"]).unlink()
    assert asked(deleted) == (messages.IMAGE_DELETED, True)
    assert asked({"version": "x"}) == (messages.SKETCH_UNREADABLE, False)
    for value in (None, {"version": "x"}, sketch, deleted):
        assert fit(value) == {}


def test_unknown_and_corrected_words_are_named() -> None:
    def checked(prompt: str) -> dict[str, Any]:
        return ACTIONS.check_prompt({"prompt": prompt, "model": "tiny"})

    corrections = {"Sunglases": "sunglasses", "hiar": "hair"}
    assert checked("Sunglases, zebra and red hiar") == {"unknown": ["zebra"], "corrections": corrections}
    assert checked("hat " * (MAX_CHECKED // 4) + "zebra") == {"unknown": [], "corrections": {}}, "of its beginning"
