"""The page as it is built, for each kind of model."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

import gradio as gr
import pytest
from tiny_models import tiny_model, tiny_pipeline

from imagebart.ui import GPU_SECONDS, find_device, on_gpu
from imagebart.ui.controls import SLIDERS
from imagebart.ui.models import Models
from imagebart.ui.page import MODEL_QUEUE, build_page, theme


def parts(page: gr.Blocks) -> dict[str, dict[str, Any]]:
    """Properties of the components that have an id, by it."""
    config = page.get_config_file()["components"]
    return {
        part["props"]["elem_id"]: part["props"] | {"type": part["type"]}
        for part in config
        if part["props"].get("elem_id")
    }


@pytest.fixture(scope="module")
def page() -> gr.Blocks:
    return build_page(Models(tiny_pipeline("text")))


def test_a_text_model_has_a_prompt_and_suggestions(page: gr.Blocks) -> None:
    found = parts(page)
    assert found["prompt"]["type"] == "textbox" and found["prompt"]["visible"] and not found["choice"]["visible"]
    assert found["suggestions"]["visible"]


def test_a_class_model_has_its_classes_in_place_of_the_prompt() -> None:
    found = parts(build_page(Models(tiny_pipeline("class"))))
    assert found["choice"]["type"] == "dropdown" and found["choice"]["visible"] and found["choice"]["filterable"]
    assert [name for name, _ in found["choice"]["choices"]] == ["cat", "dog", "bird"]
    assert (found["choice"]["value"], found["choice"]["max_choices"]) == (["cat"], 4)
    assert not found["prompt"]["visible"]


def test_an_unconditional_model_hides_both() -> None:
    found = parts(build_page(Models(tiny_pipeline("none"))))
    hidden = ("prompt", "choice", "surprise", "suggestions", "guidance")
    assert not any(found[part]["visible"] for part in hidden)


def test_the_server_never_writes_into_the_sketchpad(page: gr.Blocks) -> None:
    pad = next(part for part in page.blocks.values() if getattr(part, "elem_id", "") == "sketchpad")
    assert [fn.name for fn in page.fns.values() if pad in fn.outputs] == []


def test_every_setting_has_a_line_of_help(page: gr.Blocks) -> None:
    found = parts(page)
    settings = ("seed", "new-seed", *(slider.name.replace("_", "-") for slider in SLIDERS))
    assert all(len(found[name]["info"]) > 10 for name in settings)


def test_the_other_models_of_a_folder_can_be_chosen(page: gr.Blocks, tmp_path: Path) -> None:
    tiny_model("class").save_pretrained(tmp_path / "animals")
    found = parts(build_page(Models(tiny_pipeline(), folder=tmp_path)))["model-choice"]
    assert [name for name, _ in found["choices"]] == ["tiny", "animals"] and found["visible"]
    assert not parts(page)["model-choice"]["visible"]


def test_all_that_use_the_model_take_turns(page: gr.Blocks) -> None:
    assert page._queue.max_size is not None
    runs = [fn for fn in page.fns.values() if fn.concurrency_id == MODEL_QUEUE]
    assert len(runs) == 8 and all(fn.concurrency_limit == 1 for fn in runs)


def test_only_the_endpoints_are_public(page: gr.Blocks) -> None:
    public = [fn.api_name for fn in page.fns.values() if fn.api_visibility != "private"]
    assert sorted(map(str, public)) == ["describe", "edit", "generate", "suggest_mask", "vary"]


def test_the_theme_fetches_nothing_from_elsewhere() -> None:
    look = theme()
    assert look._stylesheets == []
    addresses = re.findall(r"url\(\s*['\"]?([^'\")]*)", look._get_theme_css())
    assert [address for address in addresses if not address.startswith(("data:", "static/"))] == []


@pytest.fixture
def lent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """The package, as far as it is used; the names of what it decorated, and for how many seconds."""
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


def test_without_the_package_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setitem(sys.modules, "spaces", None)  # as if it were not there
    assert find_device() == "cpu" and on_gpu(print) is print


@pytest.mark.parametrize(("said", "device"), [("true", "cuda"), ("1", "cuda"), ("false", "cpu"), (None, "cpu")])
def test_the_model_goes_to_the_gpu_only_where_one_is_lent(
    lent: list[tuple[str, float]], monkeypatch: pytest.MonkeyPatch, said: str | None, device: str
) -> None:
    if said is None:
        monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    else:
        monkeypatch.setenv("SPACES_ZERO_GPU", said)
    assert find_device() == device


def test_runs_and_endpoints_ask_for_the_gpu(lent: list[tuple[str, float]]) -> None:
    page = build_page(Models(tiny_pipeline()))
    endpoints = [fn.api_name for fn in page.fns.values() if fn.api_visibility == "public"]
    assert sorted(lent) == sorted((name, GPU_SECONDS) for name in ["_updates", *endpoints])
