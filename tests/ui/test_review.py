"""A finished run, looked at again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from desk import UNCHANGED, edited, noise, opened, told
from PIL import Image

from imagebart.errors import InputError
from imagebart.masks import preset
from imagebart.testing import tiny_pipeline
from imagebart.ui import review
from imagebart.ui.picture import Picture
from imagebart.ui.record import MOST_PREVIEWS, Record, Recorder, sheet

pytestmark = pytest.mark.usefixtures("own_files")


def event(index: int) -> gr.SelectData:
    return gr.SelectData(None, {"index": index, "value": None})


@pytest.fixture
def record(picture: Picture) -> Record:
    found: Record = edited(picture, variants=2)["record"]
    return found


def test_the_scrubber_goes_from_noise_to_the_result(record: Record) -> None:
    count = len(record.of_variant())
    shown = [review.scrub(step, record) for step in range(1, count + 1)]
    assert "Before the first token" in shown[0][1] and "The result" in shown[-1][1]
    assert [f"Step {number} of {count}" in line for number, (_, line) in enumerate(shown, 1)] == [True] * count
    assert shown[-1][0] == record.results[0]
    assert len({opened(path).tobytes() for path, _ in shown}) > 2


def test_a_slider_out_of_step_shows_the_nearest(record: Record) -> None:
    count = len(record.of_variant())
    assert review.scrub(99, record) == review.scrub(count, record)
    assert review.scrub(1, None) == (UNCHANGED, UNCHANGED)


def test_a_stage_in_the_strip_is_jumped_to(record: Record) -> None:
    steps = record.of_variant()
    ends = [number for number, step in enumerate(steps, 1) if step.stage]
    for index, step in enumerate(ends):
        assert review.jump(event(index), record)[0] == step
    assert review.jump(event(len(ends) - 1), record)[1] == record.results[0]


def test_another_variant_takes_the_place_of_the_first(record: Record) -> None:
    changes = told(review.choose(event(1), record))
    assert changes["preview"] == changes["download"]["value"] == record.results[1]
    assert changes["record"].variant == 1 and changes["variant_gallery"]["selected_index"] == 1
    assert opened(changes["comparison"][1]).tobytes() == opened(record.results[1]).tobytes()
    assert not {"edit", "cancel", "results"} & set(changes)  # a run may be going on
    assert told(review.choose(event(7), record)) == {}


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_a_run_becomes_a_moving_picture_of_all_its_steps(record: Record, suffix: str) -> None:
    path = review.animate(suffix, record)
    with Image.open(path) as film:
        assert path.endswith(suffix) and film.n_frames == len(record.of_variant())
        assert film.size == opened(record.results[0]).size
        film.seek(film.n_frames - 1)
        last = np.asarray(film.convert("RGB"), dtype=int)
    difference = np.abs(last - np.asarray(opened(record.results[0]), dtype=int)).mean()
    assert difference == 0 if suffix == ".webp" else difference < 16


def test_a_run_whose_files_were_deleted_is_said(record: Record) -> None:
    for path in Path(record.results[0]).parent.iterdir():
        path.unlink()
    with pytest.warns(UserWarning, match="no longer kept"):
        assert review.animate(".webp", record) == UNCHANGED
    with pytest.warns(UserWarning, match="no longer kept"):
        assert review.scrub(1, record) == (UNCHANGED, UNCHANGED)
    with pytest.raises(InputError, match="no longer kept"):
        record.picture(0)


def events(size: tuple[int, int], area: str, stages: int = 2) -> tuple[Image.Image, Image.Image, list[Any]]:
    image, mask = noise(size), preset(area, size)
    return image, mask, list(tiny_pipeline(scales=stages).edit(image, mask, "hat", seed=1))


def test_a_step_of_a_large_picture_is_whole_again() -> None:
    image, mask, run = events((700, 600), "centre")
    box = mask.getbbox()
    recorder = Recorder(image, box)
    for moment in run[:-1]:
        recorder.add(moment)
    record = recorder.finish(run[-1])
    assert len(record.steps) == len(run)
    for number, moment in enumerate(run):
        assert record.picture(number).tobytes() == moment.image.tobytes()
        assert max(opened(record.shown(number)).size) == 512


def test_long_runs_keep_a_bounded_number_of_steps() -> None:
    _, _, run = events((32, 32), "centre")
    preview = replace(run[0], kind="preview", stage=1)
    recorder = Recorder(None, None)
    sent = [recorder.add(moment) for moment in [run[0], *[preview] * 150]]
    record = recorder.finish(run[-1])
    assert all(Path(path).is_file() for path in sent), "a slow browser may still ask for them"
    assert MOST_PREVIEWS / 2 <= len(record.steps) - 2 <= MOST_PREVIEWS
    written = {Path(path).name for step in record.steps for path in (*step.shown, *step.parts)}
    there = {path.name for path in Path(record.results[0]).parent.glob("imagebart-*")}
    assert there == written | {Path(record.results[0]).name}, "dropped steps left files behind"


def test_four_pictures_lie_in_two_columns() -> None:
    colours = ("red", "green", "blue", "black")
    tiles = [Image.new("RGB", (64, 64), colour) for colour in colours]
    whole = sheet(tiles)
    assert whole.size == (130, 130)
    corners = [whole.getpixel(place) for place in ((5, 5), (125, 5), (5, 125), (125, 125))]
    assert corners == [tile.getpixel((0, 0)) for tile in tiles]
    assert sheet(tiles[:1]) is tiles[0]
