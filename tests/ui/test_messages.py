"""What the page says."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from tiny_models import tiny_pipeline, tiny_staged_model

from imagebart.pipeline import Pipeline
from imagebart.ui import messages


@dataclass(frozen=True)
class Event:
    kind: str = "preview"
    stage: int = 1
    stages: int = 2
    resample_index: int = 0
    resamples: int = 1
    position: int = 37
    total: int = 64
    corrector_step: int = 0
    fraction: float = 0.789
    elapsed: float = 0.84
    remaining: float | None = 1.21
    seed: int = 5
    drawing: str = ""


def line(event: Event) -> str:
    return messages.progress_html(event).partition('aria-valuetext="')[2].partition('"')[0]


def test_the_progress_line_says_stage_pass_tokens_and_time() -> None:
    time = "0.8 s, about 1.2 s left"
    assert line(Event(resamples=3)) == f"Scale 2 of 2 (finest) · pass 1 of 3 · 37 of 64 tokens · {time}"
    assert line(Event(stages=1)) == f"37 of 64 tokens · {time}"
    assert line(Event(corrector_step=1, total=4)) == f"Correcting 4 tokens · {time}"


def test_the_time_left_is_left_out_while_unknown() -> None:
    assert line(Event(stage=2, remaining=None)).startswith("Scale 1 of 2 (coarsest)")
    assert "left" not in line(Event(remaining=None))


def test_the_bar_is_a_progressbar_with_its_value() -> None:
    html = messages.progress_html(Event())
    assert 'role="progressbar"' in html and 'aria-valuenow="79"' in html and "width:79%" in html


@pytest.mark.parametrize(
    ("stage", "stages", "line"),
    [
        (1, 1, "Scale 1 of 1"),
        (2, 2, "Scale 1 of 2 (coarsest)"),
        (1, 2, "Scale 2 of 2 (finest)"),
        (4, 5, "Scale 2 of 5"),
    ],
)
def test_scales_are_counted_from_the_coarsest(stage: int, stages: int, line: str) -> None:
    assert messages.scale_line(Event(stage=stage, stages=stages)) == line


def test_a_run_in_parts_says_what_it_draws() -> None:
    event = Event(stage=3, stages=6, drawing="a lemon")
    assert messages.position_line(event) == "A lemon: step 4 of 6 · 37 of 64 tokens"


def test_steps_of_repeated_passes_are_told_apart() -> None:
    events = [Event(kind="stage", stage=stage, resample_index=p, resamples=3) for stage in (1, 2) for p in range(3)]
    steps = {messages.step_caption(event) for event in events}
    assert len(steps) == 6


def test_every_step_of_a_run_has_a_caption_of_its_own() -> None:
    start, coarse, fine = Event("start", 2), Event("stage", 2), Event("result", 1)
    on_the_way = [Event("preview", 2, position=20), Event("preview", 1, position=20), Event("preview", 1, position=40)]
    captions = [messages.step_caption(event) for event in (start, coarse, fine, *on_the_way)]
    assert len(set(captions)) == 6 and captions[1] == "Scale 1 of 2 (coarsest) done"
    assert captions[3] == "Scale 1 of 2 (coarsest): 20 of 64 tokens fixed"


def test_suggestions_are_buttons_in_folds() -> None:
    html = messages.suggestions_html({"hair": ("red hair", "a bun"), "eyes": ("open eyes",)})
    assert re.findall(r'data-add="([^"]*)"', html) == ["red hair", "a bun", "open eyes"]
    controlled, groups = (re.findall(pattern, html) for pattern in (r'aria-controls="([^"]*)"', r' id="([^"]*)"'))
    assert controlled == groups and len(groups) == html.count(" hidden>") == 2
    assert messages.suggestions_html({}) == ""


def test_what_people_typed_cannot_become_markup() -> None:
    bad = '<img src=x onerror="alert(1)">'
    for html in (
        messages.problem_html(bad),
        messages.note_html(bad),
        messages.vocabulary_html([bad]),
        messages.model_html(tiny_pipeline(), bad),
        messages.suggestions_html({bad: (bad,)}),
    ):
        assert "<img" not in html and "&lt;img" in html


def test_the_model_line_says_what_the_model_knows() -> None:
    line = messages.model_html(Pipeline(tiny_staged_model(stages=2)), "mine")
    assert line.endswith("<b>mine</b> · knows nothing only · 32 × 32 pixels · 8 × 8 tokens · 2 stages</p>")
    pipeline = tiny_pipeline()
    pipeline.knows = "hats"
    assert "knows hats only" in messages.model_html(pipeline, "mine")
    assert "any number of scales" in messages.model_html(pipeline, "mine")
