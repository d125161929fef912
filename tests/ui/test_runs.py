"""The page's runs on a tiny random model, without a browser: their updates, what is kept of them, and Cancel."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from fake_models import HAT_TOKENS, LightnessScorer, WatchedPipeline, hat_model
from page_values import control_values, noise_image, open_image, sketch_value
from PIL import Image
from tiny_models import tiny_model, tiny_pipeline
from torch import Tensor

from imagebart.fitting import ELSEWHERE
from imagebart.imaging.masks import preset
from imagebart.imaging.metadata import read_recipe
from imagebart.pipeline import MISSED, Pipeline
from imagebart.ui import messages, runs
from imagebart.ui.endpoints import Endpoints
from imagebart.ui.model_list import ModelChoice
from imagebart.ui.runs import MAX_PREVIEWS, Cancellation, RunHistory, Runs, Update
from imagebart.ui.sketchpad.component import unpack_mask
from imagebart.ui.sketchpad.stored_images import compose

pytestmark = pytest.mark.usefixtures("own_files")
PIPELINE = tiny_pipeline()
HAT = np.kron(HAT_TOKENS, np.ones((8, 8))) > 0  # where hats go in an image of 64 x 64 pixels


@pytest.fixture(scope="module")
def running() -> Runs:
    return Runs(ModelChoice(PIPELINE))


def asked(**values: Any) -> dict[str, Any]:
    return control_values(PIPELINE, **values)


def edited(image: Image.Image, **values: Any) -> Update:
    """The last update of an edit."""
    return list(Runs(ModelChoice(PIPELINE)).edit(sketch_value(image), **asked(**values)))[-1]


def result(moment: dict[str, Any], variant: int = 0) -> Image.Image:
    return open_image(moment["run"]["results"][variant]["path"])


def test_an_edit_ends_with_a_result_whose_unpainted_pixels_are_the_upload_s(image: Image.Image) -> None:
    last = edited(image)
    before, after = np.asarray(image), np.asarray(result(last))
    assert after.shape == before.shape
    assert (after[27:] == before[27:]).all() and (after[:23] != before[:23]).any()
    assert last["run"]["version"] == 3 and last["seed"] == 7 and last["run"]["box"] == (0, 0, 37, 27)


def test_an_edit_shows_noise_then_each_stage_and_ends_at_the_result(running: Runs, image: Image.Image) -> None:
    moments = list(running.edit(sketch_value(image), **asked()))
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
        seen = {step["slot"] for step in run["steps"] if step["shown"][variant : variant + 1]}
        assert len(seen) == len(run["film"]) == 6


def test_the_best_come_first_each_with_its_own_steps_and_recipe() -> None:
    judged = Pipeline(tiny_model(), scorer=LightnessScorer(-1))

    def drawn(**values: Any) -> dict[str, Any]:
        values = {"seed": 5, "variants": 4, **values}
        updates = Runs(ModelChoice(judged)).generate(None, **control_values(judged, **values))
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
        previews = [step["shown"][place : place + 1] for step in ordered["steps"] if "tokens fixed" in step["caption"]]
        assert number == 1 or not any(path for shown in previews for path in shown), "previews show the first alone"


def test_a_model_without_a_judge_takes_them_as_they_come(image: Image.Image) -> None:
    assert [made["number"] for made in edited(image, variants=2, best_first=True)["run"]["results"]] == [1, 2]


def test_a_kept_seed_repeats_and_a_new_one_does_not(image: Image.Image) -> None:
    def drawn(**seed: Any) -> tuple[int, bytes]:
        last = edited(image, **seed)
        return last["seed"], result(last).tobytes()

    fresh = drawn(new_seed=True)
    assert drawn(seed=float(fresh[0])) == fresh
    assert drawn(new_seed=True)[0] != fresh[0]


def test_a_result_says_how_it_was_made_and_unknown_words_are_named(image: Image.Image) -> None:
    last = edited(image, feather=2, words="zebra hat")
    recipe = read_recipe(last["run"]["results"][0]["path"])
    assert recipe is not None and (recipe.prompt, recipe.seed, recipe.feather) == ("zebra hat", 7, 2)
    assert "zebra" in last["messages"]


def hat_runs(scorer: LightnessScorer | None = None) -> tuple[Runs, Pipeline]:
    """Runs of the model that knows where hats go."""
    pipeline = Pipeline(hat_model(), scorer=scorer)
    return Runs(ModelChoice(pipeline)), pipeline


def test_a_run_says_what_it_may_change_and_changes_nothing_else() -> None:
    hats, pipeline = hat_runs()
    image = noise_image((64, 64))
    for pad in (sketch_value(image, None), sketch_value(image, "lower half") | {"movable": True}):
        moments = list(hats.edit(pad, **control_values(pipeline)))
        masks = [moment["run"].get("mask") for moment in moments[1:]]
        assert masks[0] == masks[-1] and not any(masks[1:-1]), "at the start and with the result"
        mask = np.asarray(unpack_mask(masks[0], image.size)) > 0
        changed = (np.asarray(result(moments[-1])) != np.asarray(image)).any(-1)
        assert np.array_equal(mask, HAT) and mask[changed].all() and changed.any()
        assert moments[-1]["run"]["box"] == (16, 0, 48, 24)


def test_a_painted_mask_stays_and_that_words_are_about_another_place_is_not_said_twice() -> None:
    hats, pipeline = hat_runs()
    pad = sketch_value(noise_image((64, 64)), "lower half")
    last = list(hats.edit(pad, **control_values(pipeline)))[-1]
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

    def told(task: str, runs: Runs = hats, **values: Any) -> str:
        updates = list(getattr(runs, task)(pad, **control_values(pipeline, **values)))
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
    last = list(hats.edit(pad, **control_values(pipeline)))[-1]
    assert last["run"]["prompt"] == "a hat background" and last["run"]["box"] == (8, 0, 56, 32)
    assert messages.NO_BACKGROUND in list(hats.edit(pad, **control_values(pipeline, words=" ")))[-1]["messages"]


def test_an_image_that_was_deleted_is_asked_for_again(running: Runs, image: Image.Image) -> None:
    asked_for = sketch_value(image)
    Path(asked_for["image"]).unlink()
    last = list(running.edit(asked_for, **asked()))[-1]
    assert last["run"]["deleted"] and last["run"]["task"] == "edit" and last["run"]["version"] == 3
    assert "no longer on the server" in last["messages"]


OTHER_MASK = f"255 {40 * 40}"
RELOAD = "reload the page"


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"mask": ""}, "paint over"),
        ({"size": [0, 0]}, "paint over"),
        ({"image": None}, messages.NO_IMAGE),
        ({"version": "x"}, RELOAD),
        ({"size": 3}, RELOAD),
        *(({"size": size}, RELOAD) for size in ([-37, -50], [40_001, 1000], [37, 51], [74, 100])),
        *(({"size": size, "mask": "255 1"}, RELOAD) for size in ([-37, -50], [40_001, 1000], [37, 51], [74, 100])),
        ({"mask": OTHER_MASK}, "another image"),
    ],
)
def test_a_sketch_that_cannot_be_edited_is_reported(
    running: Runs, image: Image.Image, changed: dict[str, Any], sentence: str
) -> None:
    last = list(running.edit(sketch_value(image) | changed, **asked()))[-1]
    assert sentence in last["messages"] and set(last["run"]) == {"ended"}


def test_without_a_sketch_there_is_no_image(running: Runs) -> None:
    for updates in (running.edit(None, **asked()), running.vary(None, **asked())):
        assert list(updates)[-1]["messages"] == messages.problem_html(messages.NO_IMAGE)
    assert RELOAD in list(running.edit({"a": 1}, **asked()))[-1]["messages"]


def test_a_mask_is_not_stretched_over_a_larger_image(running: Runs) -> None:
    """Both are painted on in the same size."""
    sent = sketch_value(noise_image((1500, 1200))) | {"size": [3000, 2400]}
    sentence = list(running.edit(sent, **asked()))[-1]["messages"]
    assert "3,000 × 2,400" in sentence and "1,500 × 1,200" in sentence


def test_a_seed_out_of_range_is_said_and_the_page_is_ready_again(running: Runs) -> None:
    moments = list(running.generate(None, **asked(seed=-1)))
    assert "seed is -1" in moments[-1]["messages"] and moments[-1]["run"].keys() == {"ended"}


def test_controls_of_other_kinds_are_named_in_a_sentence(running: Runs, caplog: pytest.LogCaptureFixture) -> None:
    wrong = {"variants": "x", "guidance": None, "seed": math.inf, "temperature": math.nan, "words": 3, "context": "a"}
    for name, value in wrong.items():
        messages = list(running.generate(None, **asked(**{name: value})))[-1]["messages"]
        assert f"The {name} is " in messages and "it must be" in messages
    assert caplog.records == []


def test_an_unexpected_error_gives_a_number_that_the_log_has_and_keeps_all(
    running: Runs, image: Image.Image, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a fault in /some/place")

    monkeypatch.setattr(PIPELINE.model.sampler, "prepare", broken)
    last = list(running.edit(sketch_value(image), **asked()))[-1]
    number = re.search(r"error (\d{8})\.", last["messages"])
    assert number is not None and number.group(1) in caplog.text and "RuntimeError" in caplog.text
    assert "some" not in last["messages"]
    # Only what shows a run changes: not the words, and of the sketchpad not the image nor the mask.
    assert last.keys() == {"run", "progress", "announcement", "messages"}
    assert set(last["run"]) == {"ended"}


def test_a_model_that_is_not_there_is_said(running: Runs) -> None:
    # With no folder of models there is only the first, whatever a stale page asks for.
    moments = list(running.generate(None, **asked(model="gone")))
    assert "results" in moments[-1]["run"]


def test_generate_and_vary_give_results(running: Runs, image: Image.Image) -> None:
    generated = list(running.generate(None, **asked()))[-1]
    assert result(generated).size == (32, 32) and generated["run"]["box"] is None
    varied = list(running.vary(sketch_value(image, None), **asked(strength=0.4)))[-1]
    assert result(varied).size == image.size
    recipe = read_recipe(varied["run"]["results"][0]["path"])
    assert recipe is not None and recipe.strength == 0.4


def test_the_context_reaches_the_model(running: Runs) -> None:
    # A large image painted in one corner: with little context the model sees the corner alone.
    corner = Image.new("L", (512, 512))
    corner.paste(255, (0, 0, 100, 100))
    wide = sketch_value(noise_image((512, 512)), corner)
    totals = []
    for context in (0.25, 3.0):
        moments = list(running.edit(wide, **asked(context=context)))
        told = re.search(r'aria-valuetext="[^"]* of (\d+) tokens', moments[1]["progress"])
        assert told is not None
        totals.append(int(told[1]))
    assert totals[0] > totals[1]


def test_closing_a_run_ends_the_model_s_work(image: Image.Image) -> None:
    pipeline = WatchedPipeline(tiny_model())
    updates = Runs(ModelChoice(pipeline)).edit(sketch_value(image), **control_values(pipeline))
    for _ in range(3):
        next(updates)
    assert pipeline.running == 1
    updates.close()  # type: ignore[attr-defined]
    assert pipeline.running == 0


def test_the_updates_that_the_browser_makes_itself() -> None:
    waiting, failed = runs.waiting(), runs.failed(messages.SERVER_BUSY, "a-run")
    assert "Waiting" in waiting["progress"] and "run" not in waiting
    assert "try again" in failed["messages"] and failed["run"] == {"ended": "a-run"} and "seed" not in failed


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


@pytest.fixture
def cancellation() -> Cancellation:
    with gr.Blocks() as page:
        return Cancellation(page)


def edit(cancellation: Cancellation, image: Image.Image, name: object) -> Iterator[Update]:
    cancellable = cancellation.applied_to(Runs(ModelChoice(PIPELINE)).edit)
    return cancellable({**sketch_value(image), "run": name}, **control_values(PIPELINE))


def test_a_run_that_nobody_stops_has_its_result_under_its_name(cancellation: Cancellation, image: Image.Image) -> None:
    cancellation.cancel("another")
    last = list(edit(cancellation, image, "this"))[-1]
    assert "results" in last["run"] and last["run"]["run"] == "this" and "Cancelled" not in last["messages"]


def test_a_run_that_was_stopped_before_it_came_says_only_that(cancellation: Cancellation, image: Image.Image) -> None:
    cancellation.cancel("this")
    (only,) = list(edit(cancellation, image, "this"))
    assert only["run"] == {"ended": "this"} and "Cancelled" in only["messages"]


def test_a_run_that_is_stopped_on_its_way_draws_no_more(cancellation: Cancellation, image: Image.Image) -> None:
    moments = edit(cancellation, image, "this")
    shown = [next(moments) for _ in range(3)]
    cancellation.cancel("this")
    (last,) = list(moments)
    assert shown[-1]["run"]["images"] and last["run"] == {"ended": "this"} and "Cancelled" in last["messages"]


def test_a_result_that_was_shown_is_not_taken_back(cancellation: Cancellation, image: Image.Image) -> None:
    moments = edit(cancellation, image, "this")
    while "results" not in (next(moments).get("run") or {}):
        pass
    cancellation.cancel("this")
    assert list(moments) == []


def test_of_many_names_the_last_ones_are_known(image: Image.Image) -> None:
    with gr.Blocks() as page:
        cancellation = Cancellation(page, max_names=2)
    for name in ("first", "second", "third"):
        cancellation.cancel(name)
    assert ["ended" in list(edit(cancellation, image, name))[-1]["run"] for name in ("first", "second", "third")] == [
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("name", [None, 3, "", "x" * 5000, [], {}])
def test_names_that_no_page_gives_stop_nothing(cancellation: Cancellation, image: Image.Image, name: object) -> None:
    asyncio.run(cancellation.endpoint()(name))
    assert "results" in list(edit(cancellation, image, name))[-1]["run"]


def test_a_run_over_its_time_is_ended_by_a_sentence(image: Image.Image) -> None:
    pipe = WatchedPipeline(tiny_model(), pause=0.05)
    *_, last = Runs(ModelChoice(pipe), 0.1).generate(sketch_value(image), **asked())
    assert "longer than the 0.1 seconds that this page allows" in last["messages"] and pipe.running == 0
    with pytest.raises(gr.Error, match="longer than the 0.1 seconds"):
        list(Endpoints(pipe, 0.1).generate("a hat"))
    assert pipe.running == 0
    assert list(Endpoints(pipe, 60).generate("a hat", scales=1))[-1][1] == "done"
