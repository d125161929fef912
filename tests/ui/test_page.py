"""The page as it is built, for each kind of model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from imagebart.testing import tiny_pipeline
from imagebart.ui.examples import find_examples
from imagebart.ui.launch import theme
from imagebart.ui.page import TURN, build_page


def parts(page: gr.Blocks) -> dict[str, dict[str, Any]]:
    """Properties of the components that have an id, by it."""
    config = page.get_config_file()["components"]
    return {
        part["props"]["elem_id"]: part["props"] | {"type": part["type"]}
        for part in config
        if part["props"].get("elem_id")
    }


def test_a_text_model_has_a_prompt_and_its_words() -> None:
    found = parts(build_page(tiny_pipeline("text")))
    assert found["prompt"]["type"] == "textbox" and found["prompt"]["visible"]
    assert "words" in found


def test_a_class_model_has_its_classes_in_place_of_the_prompt() -> None:
    found = parts(build_page(tiny_pipeline("class")))
    assert found["prompt"]["type"] == "dropdown" and "words" not in found
    assert [name for name, _ in found["prompt"]["choices"]] == ["cat", "dog", "bird"]


def test_an_unconditional_model_hides_the_prompt() -> None:
    assert not parts(build_page(tiny_pipeline("none")))["prompt"]["visible"]


@pytest.mark.parametrize("kind", ["canvas", "preview", "comparison", "strip"])
def test_pictures_are_sent_without_loss(kind: str) -> None:
    assert parts(build_page(tiny_pipeline()))[kind]["format"] == "png"


def test_the_canvas_opens_on_the_first_example(tmp_path: Path) -> None:
    Image.new("RGB", (128, 128), "red").save(tmp_path / "1-red.png")
    found = parts(build_page(tiny_pipeline(), find_examples(tmp_path)))
    with Image.open(found["canvas"]["value"]["background"]["path"]) as shown:
        assert shown.convert("RGB").getpixel((9, 9)) == (255, 0, 0)
    assert len(found["examples"]["value"]) == 1


def test_all_that_use_the_model_take_turns() -> None:
    page = build_page(tiny_pipeline())
    assert page._queue.max_size is not None
    runs = [fn for fn in page.fns.values() if fn.concurrency_id == TURN]
    assert len(runs) == 5 and all(fn.concurrency_limit == 1 for fn in runs)


def test_only_the_endpoints_are_public() -> None:
    public = [fn.api_name for fn in build_page(tiny_pipeline()).fns.values() if fn.api_visibility != "private"]
    assert sorted(map(str, public)) == ["edit", "generate"]


def test_the_theme_fetches_nothing_from_elsewhere() -> None:
    look = theme()
    assert look._stylesheets == []
    addresses = re.findall(r"url\(\s*['\"]?([^'\")]*)", look._get_theme_css())
    assert [address for address in addresses if not address.startswith(("data:", "static/"))] == []
