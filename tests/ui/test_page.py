"""The page as it is built, what it says, the GPU that it asks for, and its files: images and masks, by their names."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import gradio as gr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_values import noise_image, open_image
from PIL import Image
from tiny_models import tiny_model, tiny_pipeline

from imagebart.core.errors import InputError
from imagebart.imaging.files import Recipe, write_png
from imagebart.imaging.masks import preset
from imagebart.pipeline import PipelineEvent
from imagebart.ui import GPU_SECONDS, files, find_device, messages, on_gpu, temporary_folder
from imagebart.ui.actions import TASKS
from imagebart.ui.files import MAX_AGE, MAX_AGES, ImageDeleted, publish, scale_mask, tidy, view_size
from imagebart.ui.models import Models, find_examples
from imagebart.ui.page import MODEL_QUEUE, build_page

ENDPOINTS = ["describe", "edit", "generate", "suggest_mask", "vary"]


@pytest.fixture(scope="module")
def page() -> gr.Blocks:
    return build_page(Models(tiny_pipeline("text")))


def test_it_opens_with_the_controls_of_its_model_and_with_a_choice_where_there_are_others(tmp_path: Path) -> None:
    tiny_model("none").save_pretrained(tmp_path / "plain")
    built = build_page(Models(tiny_pipeline("class"), folder=tmp_path)).get_config_file()["components"]
    parts = {part["props"].get("elem_id"): part["props"] for part in built}
    assert not parts["prompt"]["visible"] and parts["choice"]["visible"]
    assert [name for name, _ in parts["choice"]["choices"]] == ["cat", "dog", "bird"]
    assert parts["model"]["props"]["choices"] == [("Tiny", "tiny"), ("Plain", "plain")]


def test_the_server_never_writes_into_the_sketchpad_and_all_that_use_the_model_take_turns(page: gr.Blocks) -> None:
    pad = next(part for part in page.blocks.values() if getattr(part, "elem_id", "") == "sketchpad")
    assert [fn.name for fn in page.fns.values() if pad in fn.outputs] == []
    runs = [fn for fn in page.fns.values() if fn.concurrency_id == MODEL_QUEUE]
    assert len(runs) == len(TASKS) + len(ENDPOINTS) and {fn.concurrency_limit for fn in runs} == {1}


@pytest.fixture
def lent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """The package of ZeroGPU, as far as it is used: what it decorated, and for how many seconds."""
    decorated: list[tuple[str, float]] = []

    def gpu(duration: float) -> Callable[..., Any]:
        def decorate(run: Callable[..., Any]) -> Callable[..., Any]:
            decorated.append((run.__name__, duration))
            return run

        return decorate

    spaces = ModuleType("spaces")
    spaces.GPU = gpu  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spaces", spaces)
    return decorated


@pytest.mark.usefixtures("lent")
@pytest.mark.parametrize(("said", "device"), [("true", "cuda"), ("1", "cuda"), ("false", "cpu"), ("", "cpu")])
def test_only_a_lent_gpu_is_used(monkeypatch: pytest.MonkeyPatch, said: str, device: str) -> None:
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


def test_the_progress_bar_says_how_far_the_run_is(event: PipelineEvent) -> None:
    for changed, line in (
        ({"resamples": 3}, "Step 2 of 2 (finest) · pass 1 of 3 · 58 % · 0.8 s"),
        ({"stage": 2, "remaining": 1.21}, "Step 1 of 2 (coarsest) · 58 % · 0.8 s, about 1.2 s left"),
        ({"stages": 1}, "58 % · 0.8 s"),
        ({"corrector_step": 1, "total": 4}, "Correcting · 0.8 s"),
        ({"stage": 3, "stages": 6, "drawing": "a lemon"}, "A lemon: step 4 of 6 · 58 % · 0.8 s"),
    ):
        html = messages.progress_html(replace(event, **changed))
        assert f'aria-valuetext="{line}"' in html
        assert 'role="progressbar"' in html and 'aria-valuenow="79"' in html and "width:79%" in html


def test_every_step_of_a_run_has_a_caption_of_its_own(event: PipelineEvent) -> None:
    events = [replace(event, stage=stage, position=position) for stage in (2, 1) for position in (20, 40)]
    events += [replace(event, kind=kind) for kind in ("start", "result")]
    for number in range(3):
        events += [replace(event, kind="stage", stage=s, resamples=3, resample_index=number) for s in (2, 1)]
    captions = [messages.step_caption(event) for event in events]
    assert len(set(captions)) == len(events) and captions[0] == "Step 1 of 2 (coarsest): 31 % drawn"


def test_what_people_typed_cannot_become_markup(event: PipelineEvent) -> None:
    bad = '<img src=x onerror="alert(1)">'
    for html in (
        messages.problem_html(bad),
        messages.note_html(bad),
        messages.words_html({bad: (bad,)}, [bad]),
        messages.progress_html(replace(event, drawing=bad)),
    ):
        assert "<img" not in html and "&lt;img" in html


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    own = Path(temporary_folder())
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(own))
    return own


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


def test_the_folder_is_only_for_this_user(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder.parent == tmp_path.resolve() and folder.stat().st_mode & 0o077 == 0
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "file"))
    with pytest.raises(InputError, match="set GRADIO_TEMP_DIR to a folder that can be written to"):
        temporary_folder()


def test_each_kind_of_file_has_its_age(folder: Path) -> None:
    result, preview = publish(Image.new("RGB", (8, 8))), publish(Image.new("RGB", (8, 8)), "preview")
    (folder / "tmpabc").write_bytes(b"half an upload")
    upload = folder / "0123" / "upload.png"
    upload.parent.mkdir()
    upload.write_bytes(b"an upload")
    os.utime(upload, (0, 0))  # as a copy has the time of an old file
    now, all_of_them = time.time(), left(folder)
    times = tidy(folder, now)
    assert left(folder) == all_of_them
    times = tidy(folder, now + MAX_AGES["preview-"] + 5, times)
    assert all_of_them - left(folder) == {Path(preview).name}
    times = tidy(folder, now + MAX_AGES["tmp"] + 5, times)
    assert "tmpabc" not in left(folder) and upload.exists() and Path(result).exists()
    tidy(folder, now + MAX_AGE + 5, times)
    tidy(folder, now + 2 * MAX_AGE + 5)
    assert left(folder) == set(), "folders go with their last file"


def test_the_examples_stay_and_an_upload_of_their_names_does_not(folder: Path) -> None:
    (folder / "there").mkdir()
    Image.new("RGB", (40, 40), "red").save(folder / "there" / "01-red.png")
    (example,) = find_examples(folder / "there")
    shown = example.publish()
    paths = [Path(path) for path in (shown["image"]["path"], shown["image"]["view"], shown["small"])]
    uploaded = folder / "0123" / paths[0].name
    uploaded.parent.mkdir()
    uploaded.write_bytes(b"an upload of that name")
    tidy(folder, time.time() + 2 * MAX_AGE)
    assert not uploaded.exists() and len(set(paths)) == 3 and all(path.exists() for path in paths)


@pytest.mark.parametrize("size", [(64, 48), (1500, 40)])
def test_an_upload_is_known_by_its_file_its_size_a_small_copy_and_whether_it_was_made_here(size: Any) -> None:
    path = publish(Image.new("RGBA", size, (10, 20, 30, 0)))
    opened = files.open_image(path)
    image, (width, height) = opened["image"], view_size(size)
    assert not opened["made"] and (image["path"], image["width"], image["height"]) == (path, *size)
    assert image["mask_size"] == {"width": width, "height": height}
    shown = open_image(image["view"])
    assert shown.size == (width, height) and shown.getpixel((0, 0))[3] == 0, "transparent as in the file"
    write_png(noise_image(size), Path(path), Recipe(model="tiny", task="generate", prompt="a hat", seed=3))
    assert files.open_image(path)["made"]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_image_grows_by_what_its_edge_repeats_up_to_its_limits(mode: str) -> None:
    image = noise_image((60, 40)).convert(mode)
    asked = {"path": publish(image), "left": 5, "top": 0, "right": 0, "bottom": 7}
    grown = files.expand(asked)["image"]
    found = np.asarray(open_image(grown["path"]))
    assert (grown["width"], grown["height"]) == (65, 47) and found.shape[2] == len(mode)
    for y in range(47):
        for x in range(65):
            assert tuple(found[y, x]) == image.getpixel((max(x - 5, 0), min(y, 39)))
    for wrong in ({"left": 90}, {"left": 10_000, "top": 9_000}):
        with pytest.raises(InputError, match="can grow to at most"):
            files.expand({**asked, **wrong})


def test_nothing_outside_the_page_s_folder_is_shown(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    noise_image((32, 32)).save(secret)
    (folder / "link.png").symlink_to(secret)
    asked: list[tuple[Callable[[Any], Any], Callable[[str], Any]]] = [
        (files.open_image, str),
        (files.link_token, str),
        (files.compose, lambda path: {"part": path}),
        (files.animate, lambda path: {"shown": [path]}),
        (files.expand, lambda path: {"path": path, "left": 0, "top": 0, "right": 0, "bottom": 0}),
        (files.open_mask, lambda path: {"path": path, "size": {"width": 32, "height": 32}}),
    ]
    for call, question in asked:
        call(question(publish(noise_image((32, 32)))))
        for path in (secret, folder / ".." / "secret.png", folder / "link.png", folder, folder / "gone.png"):
            with pytest.raises(ImageDeleted):
                call(question(str(path)))


def test_a_run_becomes_a_moving_image() -> None:
    path = files.animate({"shown": [publish(noise_image((32, 24), seed)) for seed in range(5)]})["path"]
    with Image.open(path) as film:
        assert path.endswith(".webp") and film.n_frames == 5 and film.size == (32, 24)


def test_a_mask_file_is_read_in_the_size_of_what_is_painted_on() -> None:
    mask = preset("upper half", (64, 48))
    asked = {"path": publish(mask), "size": {"width": 64, "height": 48}}
    assert files.open_mask(asked)["mask"] == files.pack_mask(mask)
    with pytest.raises(InputError, match="cannot be read"):
        files.open_mask({**asked, "size": {"width": 5000, "height": 48}})


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(16, 3000)] * 2), st.data())
def test_a_mask_goes_to_what_is_painted_on_and_back_and_loses_no_stroke(size: tuple[int, int], data: Any) -> None:
    """What is painted on is the image or a bounded copy of its shape; the right half stays the right half."""
    width, height = view_size(size)
    assert (width, height) == size if max(size) <= 1024 else max(width, height) == 1024
    assert abs(width / height / (size[0] / size[1]) - 1) <= 0.5 / min(width, height) + 1e-9
    back = np.asarray(scale_mask(scale_mask(preset("right half", size), (width, height)), size))
    slack = -(-size[0] // 1024)
    assert (back[:, size[0] // 2 + slack :] == 255).all() and (back[:, : size[0] // 2 - slack - 1] == 0).all()
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    stroke = Image.new("L", (width, height))
    stroke.putpixel((x, y), 1)
    column, row = x * size[0] // width, y * size[1] // height
    assert np.asarray(scale_mask(stroke, size))[row : row + 2, column : column + 2].any()
