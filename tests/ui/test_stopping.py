"""Cancel on the server: a run stops by its name, whichever of the two comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import gradio as gr
import pytest
from desk import controls, run, sketch, told
from PIL import Image

from imagebart.testing import tiny_pipeline
from imagebart.ui.model_list import Choice
from imagebart.ui.runs import Running, Stopping

pytestmark = pytest.mark.usefixtures("own_files")
PIPELINE = tiny_pipeline()


@pytest.fixture
def stopping() -> Stopping:
    with gr.Blocks() as page:
        return Stopping(page)


def edit(stopping: Stopping, image: Image.Image, name: object) -> Iterator[list[Any]]:
    heeded = stopping.heeded(Running(Choice(PIPELINE)).edit)
    return heeded({**sketch(image), "run": name}, *controls(PIPELINE))


def test_a_run_that_nobody_stops_has_its_result_under_its_name(stopping: Stopping, image: Image.Image) -> None:
    stopping.stop("another")
    last = run(edit(stopping, image, "this"))[-1]
    assert "results" in last["run"] and last["run"]["run"] == "this" and "Cancelled" not in last["messages"]


def test_a_run_that_was_stopped_before_it_came_says_only_that(stopping: Stopping, image: Image.Image) -> None:
    stopping.stop("this")
    (only,) = run(edit(stopping, image, "this"))
    assert only["run"] == {"over": "this"} and "Cancelled" in only["messages"]


def test_a_run_that_is_stopped_on_its_way_draws_no_more(stopping: Stopping, image: Image.Image) -> None:
    moments = edit(stopping, image, "this")
    shown = [told(next(moments)) for _ in range(3)]
    stopping.stop("this")
    (last,) = run(moments)
    assert shown[-1]["run"]["images"] and last["run"] == {"over": "this"} and "Cancelled" in last["messages"]


def test_a_result_that_was_shown_is_not_taken_back(stopping: Stopping, image: Image.Image) -> None:
    moments = edit(stopping, image, "this")
    while "results" not in (told(next(moments)).get("run") or {}):
        pass
    stopping.stop("this")
    assert run(moments) == []


def test_of_many_names_the_last_ones_are_known(image: Image.Image) -> None:
    with gr.Blocks() as page:
        stopping = Stopping(page, most=2)
    for name in ("first", "second", "third"):
        stopping.stop(name)
    assert ["over" in run(edit(stopping, image, name))[-1]["run"] for name in ("first", "second", "third")] == [
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("name", [None, 3, "", "x" * 5000, [], {}])
def test_names_that_no_page_gives_stop_nothing(stopping: Stopping, image: Image.Image, name: object) -> None:
    asyncio.run(stopping.answer()(name))
    assert "results" in run(edit(stopping, image, name))[-1]["run"]
