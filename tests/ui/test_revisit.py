"""A page that is loaded again finds what was made on it, as long as the server remembers."""

from __future__ import annotations

import re
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from desk import noise, painted, told
from gradio.routes import App
from PIL import Image
from test_running import asked

from imagebart.testing import tiny_pipeline
from imagebart.ui.canvas_actions import CanvasActions
from imagebart.ui.choice import Choice
from imagebart.ui.examples import find_examples
from imagebart.ui.files import publish
from imagebart.ui.picture import Picture
from imagebart.ui.revisit import OPENED, Opening
from imagebart.ui.running import Running
from imagebart.ui.trail import Stop, Trail

pytestmark = pytest.mark.usefixtures("own_files")
NAMES = ("picture", "trail", "last_mask", "record", "results")


class Page:
    """A page with an example, and what sessions do with it."""

    def __init__(self, examples: Path) -> None:
        noise((32, 32)).save(examples / "example.png")
        with gr.Blocks() as blocks:
            self.states = {name: gr.State(None) for name in NAMES}
        self.app = App.create_app(blocks)
        self.choice = Choice(tiny_pipeline())
        self.opening = Opening(blocks, CanvasActions(self.choice, find_examples(examples)), self.states)

    def keep(self, session: str, **values: Any) -> None:
        for name, value in values.items():
            self.app.state_holder[session][self.states[name]._id] = value

    def open(self, before: str, words: str | None = None, paint: str = "") -> dict[str, Any]:
        return told(self.opening.open(before, words, paint, gr.Request(session_hash="now")), OPENED)


@pytest.fixture
def page(tmp_path: Path) -> Page:
    return Page(tmp_path)


def test_a_new_page_has_the_first_example_and_knows_its_own_name(page: Page, tmp_path: Path) -> None:
    for before in ("", "one that nobody knows"):
        opened = page.open(before, "old words")
        assert opened["picture"].path == str(tmp_path / "example.png")
        assert re.search(r'data-session="now"', opened["visit"]) and "words" not in opened


def test_the_visitors_picture_run_and_results_are_there_again(page: Page, picture: Picture) -> None:
    *_, last = (told(moment) for moment in Running(page.choice).edit(painted(picture), picture, None, *asked()))
    trail = Trail((Stop(publish(noise((20, 20)))),))
    page.keep("before", picture=picture, trail=trail, record=last["record"], results=last["results"])
    opened = page.open("before", "a hat")
    assert opened["picture"].image == picture.image and opened["words"] == "a hat"
    assert opened["trail"] == trail and opened["undo"]["interactive"] and not opened["redo"]["interactive"]
    assert opened["preview"] == last["preview"] and opened["record"] == last["record"]
    assert opened["results_gallery"] == last["results_gallery"] and opened["resume"]["interactive"]
    assert opened["editor"]["layers"] == []


def test_the_mask_of_the_last_edit_is_there_again_where_it_fits(page: Page, picture: Picture) -> None:
    moments = [told(moment) for moment in Running(page.choice).edit(painted(picture), picture, None, *asked())]
    mask = next(moment["last_mask"] for moment in moments if "last_mask" in moment)
    page.keep("before", picture=picture, last_mask=mask)
    opened = page.open("before")
    assert len(opened["editor"]["layers"]) == 1 and opened["last_mask"] == mask
    page.keep("before", picture=Picture.of(noise((90, 20))))
    assert page.open("before")["editor"]["layers"] == []


def test_what_was_painted_is_there_again_before_the_mask_of_the_last_edit(page: Page, picture: Picture) -> None:
    file = BytesIO()
    mask = Image.new("L", picture.view.size)
    mask.paste(255, (3, 4, 9, 12))
    mask.save(file, "PNG")
    page.keep("before", picture=picture, last_mask=b"another")
    opened = page.open("before", paint=f"data:image/png;base64,{b64encode(file.getvalue()).decode()}")
    (layer,) = opened["editor"]["layers"]
    assert Image.open(layer).getchannel("A").getbbox() == (3, 4, 9, 12)
    for paint in ("data:image/png;base64,!", "data:image/png;base64,aaaa", "javascript:1"):
        assert page.open("before", paint=paint)["editor"]["layers"] == []


def test_what_was_deleted_meanwhile_is_left_out(page: Page, picture: Picture) -> None:
    *_, last = (told(moment) for moment in Running(page.choice).edit(painted(picture), picture, None, *asked()))
    page.keep("before", picture=picture, record=last["record"], results=last["results"])
    for path in Path(last["preview"]).parent.iterdir():
        path.unlink()
    opened = page.open("before")
    assert opened["picture"].image == picture.image and not {"preview", "results", "record"} & set(opened)
