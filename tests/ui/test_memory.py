"""The memory of sessions, bounded in bytes."""

from __future__ import annotations

import asyncio
from typing import Any

import gradio as gr
import pytest
from desk import noise
from gradio.routes import App
from gradio.state_holder import StateHolder
from PIL import Image

from imagebart.ui.memory import trim, trimmed
from imagebart.ui.picture import Picture
from imagebart.ui.record import Record
from imagebart.ui.trail import Stop, Trail

PICTURE = Picture.of(noise((600, 400)))


@pytest.fixture
def app() -> Any:
    with gr.Blocks() as page:
        gr.State(None), gr.State(None)
    return App.create_app(page)


def keep(sessions: StateHolder, name: str, *values: Any) -> None:
    """A session remembers some values."""
    for key, value in zip(sessions.blocks.blocks, values, strict=False):
        sessions[name][key] = value


def test_sizes_are_those_of_the_pixels() -> None:
    assert PICTURE.nbytes == len(PICTURE.image.tobytes()) + len(PICTURE.view.tobytes())
    clear = Image.new("RGBA", (30, 20))
    assert Picture(clear, clear).nbytes == 2 * len(clear.tobytes())
    assert Record(None, clear, None, (), ()).nbytes == len(clear.tobytes())  # type: ignore[arg-type]
    assert Trail((Stop("a", b"123"), Stop("b")), (Stop("c", b"45"),)).nbytes == 5


def test_the_sessions_longest_unused_are_forgotten_first(app: Any) -> None:
    sessions = app.state_holder
    for name in ("first", "second", "third"):
        keep(sessions, name, PICTURE, b"mask")
    keep(sessions, "empty")
    size = PICTURE.nbytes + 4
    sessions["first"]  # is used again
    assert trim(sessions, 3 * size) == 0
    assert trim(sessions, 3 * size - 1) == 1 and set(sessions.session_data) >= {"first", "third"}
    assert "second" not in sessions and "second" not in sessions.time_last_used
    assert trim(sessions, size) == 1 and "first" in sessions and "third" not in sessions


def test_a_server_keeps_within_the_bound_by_itself(app: Any) -> None:
    keep(app.state_holder, "one", PICTURE)

    async def live() -> None:
        async with trimmed(every=0.01, most=PICTURE.nbytes)(app):
            await asyncio.sleep(0.05)
            assert "one" in app.state_holder
            keep(app.state_holder, "two", PICTURE)
            while "one" in app.state_holder:
                await asyncio.sleep(0.01)
            assert "two" in app.state_holder

    asyncio.run(asyncio.wait_for(live(), 20))
