"""What the page says."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from imagebart.ui import wording


@dataclass(frozen=True)
class Told:
    stage: int = 1
    stages: int = 2
    pass_index: int = 0
    passes: int = 1
    position: int = 37
    total: int = 64
    fraction: float = 0.789
    elapsed: float = 0.84
    remaining: float | None = 1.21
    seed: int = 5


def test_the_progress_line_says_stage_pass_tokens_and_time() -> None:
    expected = "Stage 2 of 2 (fine) · pass 1 of 1 · 37 of 64 tokens · 0.8 s, about 1.2 s left"
    assert wording.progress_line(Told()) == expected


def test_the_time_left_is_left_out_while_unknown() -> None:
    assert wording.progress_line(Told(stage=2, remaining=None)).startswith("Stage 1 of 2 (coarse)")
    assert "left" not in wording.progress_line(Told(remaining=None))


def test_the_bar_is_a_progressbar_with_its_value() -> None:
    html = wording.progress_html(Told())
    assert 'role="progressbar"' in html and 'aria-valuenow="79"' in html and "width:79%" in html


@pytest.mark.parametrize(
    ("stage", "stages", "name"),
    [
        (1, 1, "picture"),
        (2, 2, "coarse"),
        (1, 2, "fine"),
        (5, 5, "coarse"),
        (4, 5, "finer 1"),
        (1, 5, "fine"),
    ],
)
def test_stages_have_plain_names(stage: int, stages: int, name: str) -> None:
    assert wording.stage_name(stage, stages) == name


def test_steps_of_repeated_passes_are_told_apart() -> None:
    steps = {wording.step_name(Told(stage=stage, pass_index=p, passes=3)) for stage in (1, 2) for p in range(3)}
    assert len(steps) == 6


def test_what_people_typed_cannot_become_markup() -> None:
    bad = '<img src=x onerror="alert(1)">'
    for html in (
        wording.problem_html(bad),
        wording.notes_html([bad]),
        wording.words_html([bad]),
        wording.said_html(bad),
        wording.heading_html(bad, bad),
    ):
        assert "<img" not in html and "&lt;img" in html


def test_the_model_line_says_what_the_model_knows() -> None:
    line = wording.model_summary("avatars", 128, 16, 2)
    assert line == "knows avatars only · 128 × 128 pixels · 16 × 16 tokens · 2 stages"
    assert wording.model_summary("", 256, 16, 1).endswith("1 stage")
