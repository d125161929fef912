"""The page's actions on a tiny random model, without a browser: runs, Cancel and questions."""

import math
import resource
from collections.abc import Iterator
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

pytestmark = pytest.mark.usefixtures("own_files")
PIPELINE = tiny_pipeline()
ACTIONS = Actions(Models(PIPELINE))
HAT = np.kron(HAT_TOKENS, np.ones((8, 8))) > 0  # where hats go in an image of 64 x 64 pixels
HAT_PIPELINE = Pipeline(hat_model(), scorer=FixedDescriber("a hat"))
HAT_ACTIONS = Actions(Models(HAT_PIPELINE))
SQUARE = (64, 64)
LOWER = np.asarray(preset("lower half", SQUARE)) > 0


def moments(task: str, sketch: Any, pipeline: Pipeline = PIPELINE, **values: Any) -> list[Update]:
    """The updates of a run."""
    return list(Actions(Models(pipeline)).run(task, sketch, **control_values(pipeline, **values)))


def edited(image: Image.Image, pipeline: Pipeline = PIPELINE, **values: Any) -> Update:
    """The last update of an edit."""
    return moments("edit", sketch_value(image), pipeline, **values)[-1]


def result(moment: Update, variant: int = 0) -> Image.Image:
    return open_image(moment["run"]["results"][variant]["path"])


def test_an_edit_ends_with_a_result_whose_unpainted_pixels_are_the_upload_s(image: Image.Image) -> None:
    last = edited(image)
    before, after = np.asarray(image), np.asarray(result(last))
    assert (after[27:] == before[27:]).all() and (after[:23] != before[:23]).any()
    assert last["run"]["version"] == 3 and last["seed"] == 7 and last["run"]["box"] == (0, 0, 37, 27)
    after = np.asarray(result(edited(image, exact=True)))
    assert (after[25:] == before[25:]).all() and (after[23:25] != before[23:25]).any()


def test_an_edit_shows_noise_then_each_stage_and_ends_at_the_result(image: Image.Image) -> None:
    run = moments("edit", sketch_value(image))
    assert all(open_image(path).size == image.size for moment in run[1:-1] for path in moment["run"]["images"])
    assert {moment["run"]["version"] for moment in run[1:]} == {3}
    steps = run[-1]["run"]["steps"]
    captions, slots = [step["caption"] for step in steps], [step["slot"] for step in steps]
    assert captions[0].startswith("Noise") and captions[-1] == "The result"
    # Each state has its place in the film, which is known from the start.
    assert {tuple(moment["run"]["film"]) for moment in run[1:]} == {("Noise", "1 of 2", "Image")}
    assert slots == sorted(slots) and set(slots) == {0, 1, 2}
    assert slots[captions.index("Scale 1 of 2 (coarsest) done")] == 1
    assert open_image(steps[-1]["shown"][0]).tobytes() == result(run[-1]).tobytes()
    assert "Done" in run[-1]["progress"] and "ready" in run[-1]["announcement"]


def test_variants_come_from_one_run_and_differ_and_without_a_scorer_they_come_as_drawn(image: Image.Image) -> None:
    last = edited(image, variants=3, best_first=True)
    assert len({result(last, variant).tobytes() for variant in range(3)}) == 3
    recipes = [read_recipe(described["path"]) for described in last["run"]["results"]]
    assert [recipe.variant for recipe in recipes if recipe] == [0, 1, 2]


def test_of_a_photograph_whose_previews_are_not_kept_all_states_are_seen_of_all_variants(
    monkeypatch: pytest.MonkeyPatch, image: Image.Image
) -> None:
    monkeypatch.setattr("imagebart.ui.actions.MAX_KEPT_PIXELS", 1)
    run = edited(image, variants=4, scales=4, corrector_steps=2)["run"]
    for variant in range(4):
        seen = {step["slot"] for step in run["steps"] if step["shown"][variant]}
        assert len(seen) == len(run["film"]) == 6


def test_the_best_come_first_each_with_its_own_steps_and_recipe() -> None:
    judged = Pipeline(tiny_model(), scorer=LightnessScorer(-1))
    as_drawn, ordered = (
        moments("generate", None, judged, seed=5, variants=4, best_first=best)[-1]["run"] for best in (False, True)
    )
    light = [np.asarray(open_image(made["path"])).mean() for made in ordered["results"]]
    numbers = [made["number"] for made in ordered["results"]]
    assert light == sorted(light) and sorted(numbers) == [1, 2, 3, 4] and numbers != [1, 2, 3, 4]
    for place, (number, made) in enumerate(zip(numbers, ordered["results"], strict=True)):
        recipe = read_recipe(made["path"])
        assert recipe is not None and recipe.variant == number - 1 and f"-5-{number}" in made["path"]
        assert np.array_equal(open_image(made["path"]), open_image(as_drawn["results"][number - 1]["path"]))
        for moment in (0, -1):  # both show all variants
            steps = ordered["steps"][moment]["shown"][place], as_drawn["steps"][moment]["shown"][number - 1]
            assert np.array_equal(*map(open_image, steps))
        previews = [step["shown"][place] for step in ordered["steps"] if "tokens fixed" in step["caption"]]
        assert number == 1 or not any(previews), "previews show the first alone"


def test_a_result_says_how_it_was_made_and_unknown_words_are_named(image: Image.Image) -> None:
    last = edited(image, feather=2, words="zebra hat")
    recipe = read_recipe(last["run"]["results"][0]["path"])
    assert recipe is not None and (recipe.prompt, recipe.seed, recipe.feather) == ("zebra hat", 7, 2)
    assert "zebra" in last["messages"] and not recipe.remove
    removed = moments("edit", sketch_value(image) | {"mode": "remove"})[-1]["run"]["results"][0]["path"]
    recipe = read_recipe(removed)
    assert recipe is not None and recipe.remove and recipe.prompt is None


@pytest.mark.parametrize(
    ("area", "movable", "expected"), [(None, False, HAT), ("lower half", True, HAT), ("lower half", False, LOWER)]
)
def test_a_run_says_what_it_may_change_and_changes_nothing_else(area: Any, movable: bool, expected: np.ndarray) -> None:
    image = noise_image(SQUARE)
    run = moments("edit", sketch_value(image, area) | {"movable": movable}, HAT_PIPELINE)
    masks = [moment["run"].get("mask") for moment in run[1:]]
    assert masks[0] == masks[-1] and not any(masks[1:-1]), "at the start and with the result"
    mask = np.asarray(unpack_mask(masks[0], image.size)) > 0
    changed = (np.asarray(result(run[-1])) != np.asarray(image)).any(-1)
    assert np.array_equal(mask, expected) and mask[changed].all() and changed.any()
    assert ELSEWHERE not in run[-1]["messages"], "the page says it with a button: see `showOffer`"


class Doubter(LightnessScorer):
    """Sees nothing in any image."""

    def shows(self, squares: Tensor, prompt: str) -> list[bool]:
        return [False] * len(squares)


def test_a_result_that_misses_the_words_may_be_tried_again_as_the_best_of_four_and_then_no_more() -> None:
    doubted, sketch = Pipeline(hat_model(), scorer=Doubter()), sketch_value(noise_image(SQUARE))

    def said(task: str, pipeline: Pipeline = doubted, **values: Any) -> str:
        return str(moments(task, sketch, pipeline, **values)[-1]["messages"])

    for task in ("edit", "generate", "vary"):
        told = said(task, variants=4)
        assert MISSED in told and f'data-again="{task}"' in told
    tried = said("edit", variants=4, best_first=True)
    assert MISSED in tried and "data-again" not in tried and "data-again" in said("edit", best_first=True)
    assert MISSED not in said("edit", words="") and MISSED not in said("edit", HAT_PIPELINE)


@pytest.mark.parametrize(
    ("sketch", "values", "sentence"),
    [
        ({"mask": ""}, {}, "paint over"),
        ({"mask": "", "mode": "remove"}, {}, "Paint over what should go"),
        ({"mode": "background"}, {"words": " "}, messages.NO_BACKGROUND),
        ({"image": None}, {}, messages.NO_IMAGE),
        ({"version": "x"}, {}, "reload the page"),
        ({"mask": f"255 {40 * 40}"}, {}, "another image"),
        ({}, {"seed": -1}, "seed is -1"),
        ({}, {"model": "gone"}, "no model &#x27;gone&#x27;"),
        ({}, {"variants": "x"}, "variants is &#x27;x&#x27;, expected a whole number"),
        ({}, {"temperature": math.nan}, "temperature is nan, expected"),
    ],
)
def test_what_cannot_be_edited_is_said_and_the_page_is_ready_again(
    image: Image.Image, sketch: dict[str, Any], values: dict[str, Any], sentence: str
) -> None:
    last = moments("edit", sketch_value(image) | sketch, **values)[-1]
    assert sentence in last["messages"] and set(last["run"]) == {"ended"}


def test_an_image_that_was_deleted_is_asked_for_again(image: Image.Image) -> None:
    sketch = sketch_value(image)
    Path(sketch["image"]).unlink()
    last = moments("edit", sketch)[-1]
    assert last["run"]["deleted"] and last["run"]["task"] == "edit" and last["run"]["version"] == 3
    assert "no longer on the server" in last["messages"]


def test_a_disk_that_is_full_is_said_frees_the_model_and_leaves_no_half_image(tmp_path: Path) -> None:
    pipeline, (soft, hard) = WatchedPipeline(tiny_model()), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))  # no file grows beyond, as on a disk without room
    try:
        last = moments("generate", None, pipeline)[-1]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "disk is full" in last["messages"] and pipeline.running == 0
    assert list((tmp_path / "written").iterdir()) == []


def test_generate_and_vary_give_results(image: Image.Image) -> None:
    generated = moments("generate", None)[-1]
    assert result(generated).size == (32, 32) and generated["run"]["box"] is None
    varied = moments("vary", sketch_value(image, None), strength=0.4)[-1]
    recipe = read_recipe(varied["run"]["results"][0]["path"])
    assert result(varied).size == image.size and recipe is not None and recipe.strength == 0.4


def test_closing_a_run_ends_the_model_s_work(image: Image.Image) -> None:
    pipeline = WatchedPipeline(tiny_model())
    updates = Actions(Models(pipeline)).run("edit", sketch_value(image), **control_values(pipeline))
    for _ in range(3):
        next(updates)
    assert pipeline.running == 1
    updates.close()  # type: ignore[attr-defined]
    assert pipeline.running == 0


def test_a_run_over_its_time_is_ended_by_a_sentence() -> None:
    pipeline = WatchedPipeline(tiny_model(), pause=0.05)
    *_, last = Actions(Models(pipeline), 0.1).run("generate", None, **control_values(pipeline))
    assert "longer than the 0.1 seconds that this page allows" in last["messages"] and pipeline.running == 0
    with pytest.raises(gr.Error, match="longer than the 0.1 seconds"):
        list(Endpoints(pipeline, 0.1).generate("a hat"))
    assert pipeline.running == 0


def test_a_step_of_a_large_image_is_whole_again() -> None:
    image = noise_image((700, 600))
    *run, last = PIPELINE.edit(image, preset("centre", image.size), "hat", seed=1)
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


def begin(actions: Actions, name: str) -> Iterator[Update]:
    return actions.run("generate", {"run": name}, **control_values(PIPELINE))


def test_a_run_is_cancelled_by_its_name_before_it_comes_or_on_its_way_and_not_after_its_result() -> None:
    actions = Actions(Models(PIPELINE))
    actions.cancel("before")
    (only,) = begin(actions, "before")
    assert only["run"] == {"ended": "before"} and "Cancelled" in only["messages"]
    updates = begin(actions, "on its way")
    shown = [next(updates) for _ in range(3)]
    actions.cancel("on its way")
    (last,) = updates
    assert shown[-1]["run"]["images"] and last["run"] == {"ended": "on its way"} and "Cancelled" in last["messages"]
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
    return {**(value or {}), "model": HAT_PIPELINE.name, "words": words, **controls}


def fit(value: Any, words: str = "", exact: bool = False, context: float = 3.0) -> dict[str, Any]:
    """What Edit would change, by the model that knows where hats go."""
    return HAT_ACTIONS.fit(question(value, words, exact=exact, context=context))


@pytest.mark.parametrize(
    ("size", "area", "exact"),
    [((90, 61), "centre", False), ((90, 61), "centre", True), ((700, 1300), "upper half", False)],
)
def test_what_will_change_is_what_the_library_says(size: tuple[int, int], area: str, exact: bool) -> None:
    sketch = sketch_value(noise_image(size), area, version=9)
    answer = fit(sketch, "a hat", exact)
    mask = scale_mask(unpack_mask(sketch["mask"], view_size(size)), size)
    fitted = HAT_PIPELINE.fit_mask(noise_image(size), mask, "a hat", exact=exact)
    shown = np.asarray(scale_mask(fitted.mask, view_size(size)))
    assert np.array_equal(unpack_mask(answer["mask"], view_size(size)), shown)
    assert abs(answer["share"] - 100 * (np.asarray(fitted.mask) > 0).mean()) <= 1
    region = fitted.passes[0].region
    assert region is not None and answer["side"] == region.grid
    assert answer["box"] == [region.box.left, region.box.top, region.box.side]
    assert answer["cells"] == "".join(str(int(cell)) for cell in region.regenerated.flatten())


def test_what_will_change_follows_the_context() -> None:
    corner = Image.new("L", (512, 512))
    corner.paste(255, (0, 0, 100, 100))
    sketch = sketch_value(Image.new("RGB", (512, 512)), corner)
    assert fit(sketch, context=0.25)["box"][2] < fit(sketch)["box"][2] == 512


def test_words_find_their_place_move_a_mask_that_nobody_painted_and_leave_a_painted_one() -> None:
    image = noise_image(SQUARE)
    place = fit(sketch_value(image, None), "a hat")["mask"]
    lower = sketch_value(image, "lower half")
    assert fit({**lower, "movable": True}, "a hat")["mask"] == place
    painted = fit(lower, "a hat")
    assert painted["elsewhere"] == place and painted["mask"] == lower["mask"]
    assert "elsewhere" not in fit({**lower, "mode": "remove"}, "a hat")
    assert fit({**lower, "mode": "expand", "movable": True}, "a hat")["mask"] == lower["mask"]


def test_the_background_is_found_by_words_for_it_whatever_is_painted() -> None:
    sketch = {**sketch_value(noise_image(SQUARE), "lower half"), "mode": "background"}
    found = np.asarray(unpack_mask(fit(sketch, "hat")["mask"], SQUARE)) > 0
    assert found[:32, 8:56].all() and found.sum() == 32 * 48, "half a patch more each way"
    assert fit(sketch, "a hat background") == fit(sketch, "hat") and fit(sketch, " ") == {}
    last = moments("edit", sketch, HAT_PIPELINE)[-1]
    assert last["run"]["prompt"] == "a hat background" and last["run"]["box"] == (8, 0, 56, 32)


def test_nothing_is_answered_where_nothing_can_be_changed() -> None:
    deleted = sketch_value(noise_image(SQUARE))
    Path(deleted["image"]).unlink()
    for sketch in (None, {"version": "x"}, sketch_value(noise_image(SQUARE), None), deleted):
        assert fit(sketch) == {}


@pytest.mark.parametrize("size", [(90, 61), (1500, 1100)])
def test_what_is_selected_is_the_library_s_mask_in_the_sketchpad_s_pixels(size: tuple[int, int]) -> None:
    image = noise_image(size)
    answer = HAT_ACTIONS.select(question(sketch_value(image, "centre"), "a hat"))
    expected = scale_mask(HAT_PIPELINE.suggest_mask(image, "a hat"), view_size(size))
    assert np.array_equal(unpack_mask(answer["mask"], view_size(size)), expected)


def test_an_image_is_described_and_one_that_the_model_does_not_know_is_said_to_be_one() -> None:
    sketch = sketch_value(noise_image(SQUARE), None)
    assert HAT_ACTIONS.describe(question(sketch)) == {"caption": "a hat"}
    note = ACTIONS.recognize({**sketch, "image": "gone.png", "view": sketch["image"], "model": "tiny"})["note"]
    assert "knows nothing only" in note, "of its small copy"


def test_what_cannot_be_answered_is_a_sentence() -> None:
    def asked(value: Any, words: str = "a hat") -> tuple[str, bool]:
        answer = anyio.run(answering(HAT_ACTIONS.select, anyio.CapacityLimiter(1)), question(value, words))
        return answer["error"], answer["deleted"]

    sketch = sketch_value(noise_image(SQUARE), None)
    said, deleted = asked(sketch, "zzqx")
    assert "no word of" in said and not deleted
    Path(sketch["image"]).unlink()
    assert asked(sketch) == (messages.IMAGE_DELETED, True)
    assert asked({"version": "x"}) == (messages.SKETCH_UNREADABLE, False)


@pytest.mark.parametrize(
    ("prompt", "unknown", "corrections"),
    [
        ("Sunglases, zebra and red hiar", ["zebra"], {"Sunglases": "sunglasses", "hiar": "hair"}),
        ("hat " * (MAX_CHECKED // 4) + "zebra", [], {}),  # of a very long one, the beginning counts
    ],
)
def test_unknown_and_corrected_words_are_named(prompt: str, unknown: list[str], corrections: dict[str, str]) -> None:
    answer = ACTIONS.check_prompt({"prompt": prompt, "model": "tiny"})
    assert answer == {"unknown": unknown, "corrections": corrections}
