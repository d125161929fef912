"""The page's actions on a tiny random model, without a browser: runs and Cancel, questions, settings."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from fake_models import HAT_TOKENS, FixedDescriber, LightnessScorer, WatchedPipeline, hat_model
from page_values import control_values, noise_image, open_image, sketch_value
from PIL import Image, PngImagePlugin
from tiny_models import tiny_model, tiny_pipeline
from torch import Tensor

from imagebart.core.errors import InputError
from imagebart.core.settings import SamplingSettings
from imagebart.fitting import ELSEWHERE
from imagebart.imaging.files import Recipe, read_recipe, write_png
from imagebart.imaging.masks import preset
from imagebart.pipeline import MISSED, Pipeline
from imagebart.ui import messages
from imagebart.ui.actions import MAX_CANCELLED, MAX_CHECKED, MAX_PREVIEWS, Actions, RunHistory, Update
from imagebart.ui.endpoints import Endpoints
from imagebart.ui.files import ImageDeleted, compose, scale_mask, unpack_mask, view_size
from imagebart.ui.models import Models

pytestmark = pytest.mark.usefixtures("own_files")
PIPELINE = tiny_pipeline()
HAT = np.kron(HAT_TOKENS, np.ones((8, 8))) > 0  # where hats go in an image of 64 x 64 pixels


@pytest.fixture(scope="module")
def running() -> Actions:
    return Actions(Models(PIPELINE))


def asked(**values: Any) -> dict[str, Any]:
    return control_values(PIPELINE, **values)


def edited(image: Image.Image, **values: Any) -> Update:
    """The last update of an edit."""
    return list(Actions(Models(PIPELINE)).run("edit", sketch_value(image), **asked(**values)))[-1]


def result(moment: dict[str, Any], variant: int = 0) -> Image.Image:
    return open_image(moment["run"]["results"][variant]["path"])


def test_an_edit_ends_with_a_result_whose_unpainted_pixels_are_the_upload_s(image: Image.Image) -> None:
    last = edited(image)
    before, after = np.asarray(image), np.asarray(result(last))
    assert after.shape == before.shape
    assert (after[27:] == before[27:]).all() and (after[:23] != before[:23]).any()
    assert last["run"]["version"] == 3 and last["seed"] == 7 and last["run"]["box"] == (0, 0, 37, 27)


def test_an_edit_shows_noise_then_each_stage_and_ends_at_the_result(running: Actions, image: Image.Image) -> None:
    moments = list(running.run("edit", sketch_value(image), **asked()))
    assert all(open_image(path).size == image.size for moment in moments[1:-1] for path in moment["run"]["images"])
    assert {moment["run"]["version"] for moment in moments[1:]} == {3}
    steps = moments[-1]["run"]["steps"]
    captions = [step["caption"] for step in steps]
    assert captions[0].startswith("Noise") and captions[-1] == "The result"
    assert "Scale 1 of 2 (coarsest) done" in captions
    # Each state has its place in the film, which is known from the start.
    assert {tuple(moment["run"]["film"]) for moment in moments[1:]} == {("Noise", "1 of 2", "Image")}
    slots = [step["slot"] for step in steps]
    assert (
        slots == sorted(slots)
        and set(slots) == {0, 1, 2}
        and slots[captions.index("Scale 1 of 2 (coarsest) done")] == 1
    )
    assert open_image(steps[-1]["shown"][0]).tobytes() == result(moments[-1]).tobytes()
    assert "Done" in moments[-1]["progress"] and "ready" in moments[-1]["announcement"]


def test_variants_come_from_one_run_and_differ(image: Image.Image) -> None:
    last = edited(image, variants=3)
    assert len({result(last, variant).tobytes() for variant in range(3)}) == 3
    recipes = [read_recipe(described["path"]) for described in last["run"]["results"]]
    assert [recipe.variant for recipe in recipes if recipe] == [0, 1, 2]


def test_of_a_photograph_with_four_variants_six_states_are_seen() -> None:
    run = edited(Image.new("RGB", (3000, 2000)), variants=4, scales=4, corrector_steps=2)["run"]
    for variant in range(4):
        seen = {step["slot"] for step in run["steps"] if step["shown"][variant]}
        assert len(seen) == len(run["film"]) == 6


def test_the_best_come_first_each_with_its_own_steps_and_recipe() -> None:
    judged = Pipeline(tiny_model(), scorer=LightnessScorer(-1))

    def drawn(**values: Any) -> dict[str, Any]:
        values = {"seed": 5, "variants": 4, **values}
        updates = Actions(Models(judged)).run("generate", None, **control_values(judged, **values))
        return list(updates)[-1]["run"]

    as_drawn, ordered = drawn(), drawn(best_first=True)
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


def test_a_model_without_a_judge_takes_them_as_they_come(image: Image.Image) -> None:
    assert [made["number"] for made in edited(image, variants=2, best_first=True)["run"]["results"]] == [1, 2]


def test_a_kept_seed_repeats_and_a_new_one_does_not(image: Image.Image) -> None:
    def drawn(**seed: Any) -> tuple[int, bytes]:
        last = edited(image, **seed)
        return last["seed"], result(last).tobytes()

    fresh = drawn(new_seed=True)
    assert drawn(seed=fresh[0]) == fresh
    assert drawn(new_seed=True)[0] != fresh[0]


def test_a_result_says_how_it_was_made_and_unknown_words_are_named(image: Image.Image) -> None:
    last = edited(image, feather=2, words="zebra hat")
    recipe = read_recipe(last["run"]["results"][0]["path"])
    assert recipe is not None and (recipe.prompt, recipe.seed, recipe.feather) == ("zebra hat", 7, 2)
    assert "zebra" in last["messages"]


def hat_runs(scorer: LightnessScorer | None = None) -> tuple[Actions, Pipeline]:
    """Runs of the model that knows where hats go."""
    pipeline = Pipeline(hat_model(), scorer=scorer)
    return Actions(Models(pipeline)), pipeline


def test_a_run_says_what_it_may_change_and_changes_nothing_else() -> None:
    hats, pipeline = hat_runs()
    image = noise_image((64, 64))
    for pad in (sketch_value(image, None), sketch_value(image, "lower half") | {"movable": True}):
        moments = list(hats.run("edit", pad, **control_values(pipeline)))
        masks = [moment["run"].get("mask") for moment in moments[1:]]
        assert masks[0] == masks[-1] and not any(masks[1:-1]), "at the start and with the result"
        mask = np.asarray(unpack_mask(masks[0], image.size)) > 0
        changed = (np.asarray(result(moments[-1])) != np.asarray(image)).any(-1)
        assert np.array_equal(mask, HAT) and mask[changed].all() and changed.any()
        assert moments[-1]["run"]["box"] == (16, 0, 48, 24)


def test_a_painted_mask_stays_and_that_words_are_about_another_place_is_not_said_twice() -> None:
    hats, pipeline = hat_runs()
    pad = sketch_value(noise_image((64, 64)), "lower half")
    last = list(hats.run("edit", pad, **control_values(pipeline)))[-1]
    assert last["run"]["mask"] == pad["mask"] and ELSEWHERE not in last["messages"], "see fit.js"


def test_exactly_what_is_painted_changes_where_that_is_wanted(image: Image.Image) -> None:
    before, after = np.asarray(image), np.asarray(result(edited(image, exact=True)))
    assert (after[25:] == before[25:]).all() and (after[23:25] != before[23:25]).any()


class Doubter(LightnessScorer):
    """Sees nothing in any image."""

    def shows(self, squares: Tensor, prompt: str) -> list[bool]:
        return [False] * len(squares)


def test_a_result_that_misses_the_words_may_be_tried_again_as_the_best_of_four_and_then_no_more() -> None:
    hats, pipeline = hat_runs(Doubter())
    pad = sketch_value(noise_image((64, 64)))

    def told(task: str, runs: Actions = hats, **values: Any) -> str:
        updates = list(runs.run(task, pad, **control_values(pipeline, **values)))
        return str(updates[-1]["messages"])

    for task in ("edit", "generate", "vary"):
        assert MISSED in told(task) and f'data-again="{task}"' in told(task, variants=4)
    tried = told("edit", variants=4, best_first=True)
    assert MISSED in tried and "data-again" not in tried
    assert MISSED not in told("edit", words="")
    assert MISSED not in told("edit", runs=hat_runs()[0])


def test_the_background_is_asked_for_by_words_for_it() -> None:
    hats, pipeline = hat_runs()
    pad = sketch_value(noise_image((64, 64)), "lower half") | {"mode": "background"}
    last = list(hats.run("edit", pad, **control_values(pipeline)))[-1]
    assert last["run"]["prompt"] == "a hat background" and last["run"]["box"] == (8, 0, 56, 32)
    assert messages.NO_BACKGROUND in list(hats.run("edit", pad, **control_values(pipeline, words=" ")))[-1]["messages"]


def test_an_image_that_was_deleted_is_asked_for_again(running: Actions, image: Image.Image) -> None:
    asked_for = sketch_value(image)
    Path(asked_for["image"]).unlink()
    last = list(running.run("edit", asked_for, **asked()))[-1]
    assert last["run"]["deleted"] and last["run"]["task"] == "edit" and last["run"]["version"] == 3
    assert "no longer on the server" in last["messages"]


OTHER_MASK = f"255 {40 * 40}"
RELOAD = "reload the page"


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"mask": ""}, "paint over"),
        ({"image": None}, messages.NO_IMAGE),
        ({"version": "x"}, RELOAD),
        ({"mask": OTHER_MASK}, "another image"),
    ],
)
def test_a_sketch_that_cannot_be_edited_is_reported(
    running: Actions, image: Image.Image, changed: dict[str, Any], sentence: str
) -> None:
    last = list(running.run("edit", sketch_value(image) | changed, **asked()))[-1]
    assert sentence in last["messages"] and set(last["run"]) == {"ended"}


def test_without_a_sketch_there_is_no_image(running: Actions) -> None:
    for updates in (running.run("edit", None, **asked()), running.run("vary", None, **asked())):
        assert list(updates)[-1]["messages"] == messages.problem_html(messages.NO_IMAGE)


def test_a_seed_out_of_range_is_said_and_the_page_is_ready_again(running: Actions) -> None:
    moments = list(running.run("generate", None, **asked(seed=-1)))
    assert "seed is -1" in moments[-1]["messages"] and moments[-1]["run"].keys() == {"ended"}


def test_controls_of_other_kinds_are_named_in_a_sentence(running: Actions, caplog: pytest.LogCaptureFixture) -> None:
    wrong = {"variants": "x", "guidance": None, "seed": math.inf, "temperature": math.nan, "words": 3, "context": "a"}
    for name, value in wrong.items():
        messages = list(running.run("generate", None, **asked(**{name: value})))[-1]["messages"]
        assert f"{name} is " in messages and "expected" in messages
    assert caplog.records == []


def test_a_model_that_is_not_there_is_said(running: Actions) -> None:
    assert "no model &#x27;gone&#x27;" in list(running.run("generate", None, **asked(model="gone")))[-1]["messages"]


def test_generate_and_vary_give_results(running: Actions, image: Image.Image) -> None:
    generated = list(running.run("generate", None, **asked()))[-1]
    assert result(generated).size == (32, 32) and generated["run"]["box"] is None
    varied = list(running.run("vary", sketch_value(image, None), **asked(strength=0.4)))[-1]
    assert result(varied).size == image.size
    recipe = read_recipe(varied["run"]["results"][0]["path"])
    assert recipe is not None and recipe.strength == 0.4


def test_the_context_reaches_the_model(running: Actions) -> None:
    # A large image painted in one corner: with little context the model sees the corner alone.
    corner = Image.new("L", (512, 512))
    corner.paste(255, (0, 0, 100, 100))
    wide = sketch_value(noise_image((512, 512)), corner)
    totals = []
    for context in (0.25, 3.0):
        moments = list(running.run("edit", wide, **asked(context=context)))
        told = re.search(r'aria-valuetext="[^"]* of (\d+) tokens', moments[1]["progress"])
        assert told is not None
        totals.append(int(told[1]))
    assert totals[0] > totals[1]


def test_closing_a_run_ends_the_model_s_work(image: Image.Image) -> None:
    pipeline = WatchedPipeline(tiny_model())
    updates = Actions(Models(pipeline)).run("edit", sketch_value(image), **control_values(pipeline))
    for _ in range(3):
        next(updates)
    assert pipeline.running == 1
    updates.close()  # type: ignore[attr-defined]
    assert pipeline.running == 0


def events(size: tuple[int, int], area: str) -> tuple[Image.Image, list[Any]]:
    image = noise_image(size)
    return image, list(tiny_pipeline().edit(image, preset(area, size), "hat", seed=1))


def test_a_step_of_a_large_image_is_whole_again(tmp_path: Path) -> None:
    image, run = events((700, 600), "centre")
    history = RunHistory(True)
    for moment in run[:-1]:
        history.add(moment)
    kept = history.finish(run[-1])
    assert len(kept["steps"]) == len(run)
    base = Path(kept["results"][0]["path"]).with_name("base.png")
    image.save(base)
    for step, moment in zip(kept["steps"], run, strict=True):
        part = {"base": str(base), "box": kept["box"], "part": step["parts"][0]}
        assert open_image(compose(part)["image"]["path"]).tobytes() == moment.image.tobytes()
        assert max(open_image(step["shown"][0]).size) == 512


def test_long_runs_keep_a_bounded_number_of_steps() -> None:
    _, run = events((32, 32), "centre")
    preview = replace(run[0], kind="preview", stage=1)
    history = RunHistory()
    sent = [history.add(moment)["images"][0] for moment in [run[0], *[preview] * 150]]
    kept = history.finish(run[-1])
    assert all(Path(path).is_file() for path in sent), "a slow browser may still ask for them"
    assert MAX_PREVIEWS / 2 <= len(kept["steps"]) - 2 <= MAX_PREVIEWS
    written = {Path(path).name for step in kept["steps"] for path in (*step["shown"], *step["parts"])}
    result = Path(kept["results"][0]["path"])
    assert {path.name for path in result.parent.glob("imagebart-*")} == written | {result.name}


def edit(actions: Actions, image: Image.Image, name: object) -> Iterator[Update]:
    return actions.run("edit", {**sketch_value(image), "run": name}, **asked())


def test_a_run_that_nobody_stops_has_its_result_under_its_name(image: Image.Image) -> None:
    actions = Actions(Models(PIPELINE))
    actions.cancel("another")
    last = list(edit(actions, image, "this"))[-1]
    assert "results" in last["run"] and last["run"]["run"] == "this" and "Cancelled" not in last["messages"]


def test_a_run_that_was_stopped_before_it_came_says_only_that(image: Image.Image) -> None:
    actions = Actions(Models(PIPELINE))
    actions.cancel("this")
    (only,) = list(edit(actions, image, "this"))
    assert only["run"] == {"ended": "this"} and "Cancelled" in only["messages"]


def test_a_run_that_is_stopped_on_its_way_draws_no_more(image: Image.Image) -> None:
    actions = Actions(Models(PIPELINE))
    moments = edit(actions, image, "this")
    shown = [next(moments) for _ in range(3)]
    actions.cancel("this")
    (last,) = list(moments)
    assert shown[-1]["run"]["images"] and last["run"] == {"ended": "this"} and "Cancelled" in last["messages"]


def test_a_result_that_was_shown_is_not_taken_back(image: Image.Image) -> None:
    actions = Actions(Models(PIPELINE))
    moments = edit(actions, image, "this")
    while "results" not in (next(moments).get("run") or {}):
        pass
    actions.cancel("this")
    assert list(moments) == []


def test_of_many_names_the_last_ones_are_known(image: Image.Image) -> None:
    actions = Actions(Models(PIPELINE))
    for number in range(MAX_CANCELLED + 1):
        actions.cancel(f"run {number}")
    for name, cancelled in (("run 0", False), (f"run {MAX_CANCELLED}", True)):
        assert ("ended" in list(edit(actions, image, name))[-1]["run"]) == cancelled


def test_a_run_over_its_time_is_ended_by_a_sentence(image: Image.Image) -> None:
    pipe = WatchedPipeline(tiny_model(), pause=0.05)
    *_, last = Actions(Models(pipe), 0.1).run("generate", sketch_value(image), **asked())
    assert "longer than the 0.1 seconds that this page allows" in last["messages"] and pipe.running == 0
    with pytest.raises(gr.Error, match="longer than the 0.1 seconds"):
        list(Endpoints(pipe, 0.1).generate("a hat"))
    assert pipe.running == 0
    assert list(Endpoints(pipe, 60).generate("a hat", scales=1))[-1].orig_name is None


ACTIONS = Actions(Models(PIPELINE))
HAT_PIPELINE = Pipeline(hat_model(), scorer=FixedDescriber("a hat"))
HAT_ACTIONS = Actions(Models(HAT_PIPELINE))


def question(value: Any, words: str = "", **controls: Any) -> dict[str, Any]:
    """What the sketchpad asks with."""
    return {**(value or {}), "model": HAT_PIPELINE.name, "words": words, **controls}


def fit(value: Any, words: str = "", exact: bool = False, context: float = 3.0) -> dict[str, Any]:
    """What Edit would change, by the model that knows where hats go."""
    return HAT_ACTIONS.fit(question(value, words, exact=exact, context=context))


@pytest.mark.parametrize(("size", "area"), [((90, 61), "centre"), ((700, 1300), "upper half"), ((2000, 90), "border")])
@pytest.mark.parametrize("exact", [False, True])
def test_what_will_change_is_what_the_library_says(size: tuple[int, int], area: str, exact: bool) -> None:
    pad = sketch_value(noise_image(size), area, version=9)
    answer = fit(pad, "a hat", exact)
    mask = scale_mask(unpack_mask(pad["mask"], view_size(size)), size)
    fitted = HAT_PIPELINE.fit_mask(noise_image(size), mask, "a hat", exact=exact)
    shown = np.asarray(scale_mask(fitted.mask, view_size(size)))
    assert np.array_equal(unpack_mask(answer["mask"], view_size(size)), shown)
    assert abs(answer["share"] - 100 * (np.asarray(fitted.mask) > 0).mean()) <= 1
    region = fitted.passes[0].region
    assert region is not None and answer["side"] == region.grid
    assert answer["box"] == [region.box.left, region.box.top, region.box.side]
    assert answer["cells"] == "".join(str(int(cell)) for cell in region.regenerated.flatten())
    if exact:
        assert np.array_equal(np.asarray(fitted.mask) > 0, np.asarray(mask) > 0)


def test_what_will_change_follows_the_context() -> None:
    corner = Image.new("L", (512, 512))
    corner.paste(255, (0, 0, 100, 100))
    pad = sketch_value(Image.new("RGB", (512, 512)), corner)
    assert fit(pad, context=0.25)["box"][2] < fit(pad)["box"][2] == 512


def test_words_find_their_place_move_a_mask_that_nobody_painted_and_leave_a_painted_one() -> None:
    image = noise_image((64, 64))
    place = fit(sketch_value(image, None), "a hat")["mask"]
    lower = sketch_value(image, "lower half")
    assert fit({**lower, "movable": True}, "a hat")["mask"] == place
    painted = fit(lower, "a hat")
    assert painted["elsewhere"] == place and painted["mask"] == lower["mask"]
    assert fit({**lower, "mode": "remove"}, "a hat").keys().isdisjoint({"elsewhere"})


def test_the_background_is_found_by_words_for_it_whatever_is_painted() -> None:
    pad = {**sketch_value(noise_image((64, 64)), "lower half"), "mode": "background"}
    found = np.asarray(unpack_mask(fit(pad, "hat")["mask"], (64, 64))) > 0
    assert np.array_equal(found[:32, 8:56], np.ones((32, 48))) and found.sum() == 32 * 48, "half a patch more each way"
    assert fit(pad, "a hat background") == fit(pad, "hat") and "mask" not in fit(pad, " ")


def test_nothing_is_answered_where_nothing_can_be_changed() -> None:
    deleted = sketch_value(noise_image((40, 40)))
    Path(deleted["image"]).unlink()
    for pad in (None, {"version": "x"}, sketch_value(noise_image((40, 40)), None), deleted):
        assert fit(pad) == {}


def made(path: str, recipe: Recipe) -> None:
    write_png(noise_image((32, 32)), path, recipe)


def test_an_image_made_here_brings_back_its_prompt_seed_and_settings() -> None:
    pad = sketch_value(noise_image((32, 32)), None)
    settings = SamplingSettings(temperature=0.7, top_k=20, top_p=None, guidance=3.0, resamples=2)
    recipe = Recipe(
        model="tiny", task="edit", prompt="a red hat", seed=11, settings=settings, feather=3, context=0.5, variant=2
    )
    made(pad["image"], recipe)
    changes = ACTIONS.restore_settings(pad, "tiny")
    names = ("words", "seed", "new_seed", "temperature", "top_k", "top_p", "guidance", "resamples", "feather")
    values = ("a red hat", 13, False, 0.7, 20, 1, 3.0, 2, 3)
    assert tuple(changes[name] for name in names) == values and changes["context"] == 0.5
    assert "made here" in changes["messages"] and "another model" not in changes["messages"]
    made(pad["image"], recipe.replace(model="elsewhere", settings=SamplingSettings(guidance=99)))
    changes = ACTIONS.restore_settings(pad, "tiny")
    assert "elsewhere" in changes["messages"] and changes["guidance"] == 8  # what the slider can hold


@pytest.mark.parametrize(("prompt", "chosen"), [("dog", "dog"), ("cow", "cat")])
def test_a_class_is_chosen_again_or_the_first_one(prompt: str, chosen: str) -> None:
    animals = Actions(Models(tiny_pipeline("class")))
    pad = sketch_value(noise_image((32, 32)), None)
    made(pad["image"], Recipe(model="tiny", task="generate", prompt=prompt, seed=3))
    assert animals.restore_settings(pad, None)["choice"] == [chosen]


def test_another_image_changes_nothing_and_a_damaged_recipe_is_said() -> None:
    pad = sketch_value(noise_image((32, 32)), None)
    assert ACTIONS.restore_settings(pad, None) == {}
    text = PngImagePlugin.PngInfo()
    text.add_text("imagebart", '{"seed": "many"}')
    noise_image((32, 32)).save(pad["image"], pnginfo=text)
    assert "recipe" in ACTIONS.restore_settings(pad, None)["messages"]
    Path(pad["image"]).unlink()
    assert set(ACTIONS.restore_settings(pad, None)) == {"messages"}


@pytest.mark.parametrize("size", [(64, 64), (90, 61), (2000, 1500)])
def test_what_is_found_is_the_library_s_mask_in_the_sketchpad_s_pixels(size: tuple[int, int]) -> None:
    image = noise_image(size)
    answer = HAT_ACTIONS.select(question(sketch_value(image, "centre"), "a hat"))
    expected = scale_mask(HAT_PIPELINE.suggest_mask(image, "a hat"), view_size(size))
    assert (np.asarray(unpack_mask(answer["mask"], view_size(size))) == np.asarray(expected)).all()


def test_what_is_here_is_told_in_words() -> None:
    assert HAT_ACTIONS.describe(question(sketch_value(noise_image((40, 40)), None))) == {"caption": "a hat"}


def test_an_image_that_the_model_does_not_know_is_said_to_be_one_and_asked_of_its_small_copy() -> None:
    pad = sketch_value(noise_image((40, 40)), None)
    note = ACTIONS.recognize({**pad, "image": "gone.png", "view": pad["image"], "model": "tiny"})["note"]
    assert "knows nothing only" in note


def test_what_cannot_be_done_is_a_sentence() -> None:
    pad = sketch_value(noise_image((40, 40)), None)
    for words, said in (("", "Without words"), ("zzqx", "no word of"), ("red hair", "nothing that")):
        with pytest.raises(InputError, match=said):
            HAT_ACTIONS.select(question(pad, words))
    Path(pad["image"]).unlink()
    with pytest.raises(ImageDeleted, match="no longer on the server"):
        HAT_ACTIONS.select(question(pad, "a hat"))
    with pytest.raises(InputError, match="cannot read"):
        HAT_ACTIONS.describe(question({"version": "x"}))


CORRECTIONS = {"Sunglases": "sunglasses", "hiar": "hair"}


@pytest.mark.parametrize(
    ("prompt", "unknown", "corrections"),
    [
        ("Sunglases, zebra and red hiar", ["zebra"], CORRECTIONS),
        ("a hat", [], {}),
        ("hat " * (MAX_CHECKED // 4) + "zebra", [], {}),  # of a very long one, the beginning counts
    ],
)
def test_unknown_and_corrected_words_are_named(prompt: str, unknown: list[str], corrections: dict[str, str]) -> None:
    answer = ACTIONS.check_prompt({"prompt": prompt, "model": "tiny"})
    assert answer == {"unknown": unknown, "corrections": corrections}
