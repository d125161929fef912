"""The page as it is built, what it says, and the GPU that it asks for."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

import gradio as gr
import pytest
from tiny_models import tiny_model, tiny_pipeline, tiny_staged_model

from imagebart.pipeline import Pipeline, PipelineEvent
from imagebart.ui import GPU_SECONDS, find_device, messages, on_gpu
from imagebart.ui.actions import TASKS
from imagebart.ui.models import Models
from imagebart.ui.page import MODEL_QUEUE, build_page

ENDPOINTS = ["describe", "edit", "generate", "suggest_mask", "vary"]


@pytest.fixture(scope="module")
def page() -> gr.Blocks:
    return build_page(Models(tiny_pipeline("text")))


def test_it_opens_with_the_controls_of_its_model_and_with_a_choice_where_there_are_others(tmp_path: Path) -> None:
    tiny_model("none").save_pretrained(tmp_path / "plain")
    built = build_page(Models(tiny_pipeline("class"), folder=tmp_path)).get_config_file()["components"]
    parts = {part["props"].get("elem_id"): part["props"] for part in built}
    assert not parts["prompt"]["visible"] and parts["choice"]["visible"] and parts["model-choice"]["visible"]
    assert [name for name, _ in parts["choice"]["choices"]] == ["cat", "dog", "bird"]
    assert [name for name, _ in parts["model-choice"]["choices"]] == ["tiny", "plain"]


def test_the_server_never_writes_into_the_sketchpad(page: gr.Blocks) -> None:
    pad = next(part for part in page.blocks.values() if getattr(part, "elem_id", "") == "sketchpad")
    assert [fn.name for fn in page.fns.values() if pad in fn.outputs] == []


def test_all_that_use_the_model_take_turns(page: gr.Blocks) -> None:
    runs = [fn for fn in page.fns.values() if fn.concurrency_id == MODEL_QUEUE]
    assert len(runs) == len(TASKS) + len(ENDPOINTS) and {fn.concurrency_limit for fn in runs} == {1}


@pytest.fixture
def lent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """The package of ZeroGPU, as far as it is used: what it decorated, and for how many seconds."""
    decorated: list[tuple[str, float]] = []

    def gpu(duration: float) -> Callable[..., Any]:
        def decorate(run: Callable[..., Any]) -> Callable[..., Any]:
            decorated.append((run.__name__, duration))
            return wraps(run)(lambda *args, **kwargs: run(*args, **kwargs))

        return decorate

    spaces = ModuleType("spaces")
    spaces.GPU = gpu  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spaces", spaces)
    return decorated


@pytest.mark.usefixtures("lent")
@pytest.mark.parametrize(("said", "device"), [("true", "cuda"), ("1", "cuda"), ("false", "cpu"), ("", "cpu")])
def test_the_model_goes_to_the_gpu_only_where_one_is_lent(
    monkeypatch: pytest.MonkeyPatch, said: str, device: str
) -> None:
    monkeypatch.setenv("SPACES_ZERO_GPU", said)
    assert find_device() == device
    monkeypatch.setitem(sys.modules, "spaces", None)  # as if it were not there
    assert find_device() == "cpu" and on_gpu(print) is print


def test_runs_and_endpoints_ask_for_the_gpu(lent: list[tuple[str, float]]) -> None:
    build_page(Models(tiny_pipeline()))
    assert sorted(lent) == sorted((name, GPU_SECONDS) for name in ["_updates", *ENDPOINTS])


@pytest.fixture(scope="module")
def event() -> PipelineEvent:
    """A preview in the last of two scales."""
    *_, event = tiny_pipeline().generate("hat")
    return replace(event, kind="preview", position=37, total=64, elapsed=0.84, remaining=None, fraction=0.789)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"resamples": 3}, "Scale 2 of 2 (finest) · pass 1 of 3 · 37 of 64 tokens · 0.8 s"),
        ({"stage": 2, "remaining": 1.21}, "Scale 1 of 2 (coarsest) · 37 of 64 tokens · 0.8 s, about 1.2 s left"),
        ({"stages": 1}, "37 of 64 tokens · 0.8 s"),
        ({"corrector_step": 1, "total": 4}, "Correcting 4 tokens · 0.8 s"),
        ({"stage": 3, "stages": 6, "drawing": "a lemon"}, "A lemon: step 4 of 6 · 37 of 64 tokens · 0.8 s"),
    ],
)
def test_the_progress_bar_says_how_far_the_run_is(event: PipelineEvent, changed: dict[str, Any], line: str) -> None:
    html = messages.progress_html(replace(event, **changed))
    assert f'aria-valuetext="{line}"' in html
    assert 'role="progressbar"' in html and 'aria-valuenow="79"' in html and "width:79%" in html


def test_every_step_of_a_run_has_a_caption_of_its_own(event: PipelineEvent) -> None:
    events = [replace(event, stage=stage, position=position) for stage in (2, 1) for position in (20, 40)]
    events += [replace(event, kind=kind) for kind in ("start", "result")]
    for number in range(3):
        events += [replace(event, kind="stage", stage=s, resamples=3, resample_index=number) for s in (2, 1)]
    captions = [messages.step_caption(event) for event in events]
    assert len(set(captions)) == len(events) and captions[0] == "Scale 1 of 2 (coarsest): 20 of 64 tokens fixed"


def test_what_people_typed_cannot_become_markup(event: PipelineEvent) -> None:
    bad = '<img src=x onerror="alert(1)">'
    for html in (
        messages.problem_html(bad),
        messages.note_html(bad),
        messages.vocabulary_html([bad]),
        messages.model_html(tiny_pipeline(), bad),
        messages.suggestions_html({bad: (bad,)}),
        messages.progress_html(replace(event, drawing=bad)),
    ):
        assert "<img" not in html and "&lt;img" in html


def test_the_model_line_says_what_the_model_knows() -> None:
    line = messages.model_html(Pipeline(tiny_staged_model(stages=2)), "mine")
    assert line.endswith("<b>mine</b> · knows nothing only · 32 × 32 pixels · 8 × 8 tokens · 2 stages</p>")
