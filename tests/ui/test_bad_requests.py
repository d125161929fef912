"""Requests that no page sends: each is refused in a sentence, without a traceback, and tells nothing of the server."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
from asking import FILE, UPLOADED, Page, asking
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from imagebart.pipeline import Pipeline
from imagebart.testing import tiny_pipeline
from imagebart.ui.files import publish
from imagebart.ui.mishaps import answering
from imagebart.ui.sketchpad import shelf


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def page(pipe: Pipeline) -> Iterator[Page]:
    with asking(pipe) as page:
        yield page


def test_what_is_wrong_is_named(page: Page) -> None:
    assert "must be a number over 0 and at most 1" in page.call("vary", [UPLOADED, None, "", 1, None, 1])
    assert "There is no image; give a PNG" in page.call("edit", [None, None, "centre", "", 1, None, 1])
    assert "The prompt is 3; it must be a text" in page.call("generate", [3, 1, None, 1])
    assert "no ready mask [1]; choose one of upper half" in page.call("edit", [UPLOADED, None, [1], "", 1, None, 1])
    assert "none that was uploaded" in page.call("edit", [{**FILE, "path": ""}, None, "centre", "", 1, None, 1])
    assert "too few" in page.call("generate", [])


@pytest.mark.parametrize(
    "address", ["", "x", "http://a b/", "http://[::1/", "https://\u00ad.hf.space", "http://%00/", "http://a:b/"]
)
def test_the_way_to_other_servers_is_closed(page: Page, address: str) -> None:
    for method in ("GET", "HEAD"):
        reply = httpx.request(method, f"{page.url}gradio_api/proxy={address}")
        assert reply.status_code == 404


ROUTES = ["component_server", "queue/join", "call/generate", "call/v2/nothing", "run/nothing", "cancel"]
BODIES = [{}, [], {"data": 3}, {"component_id": 10**9, "fn_name": "take", "session_hash": "a"}, "x"]
STRANGE = [None, 3, "a\0b", "x" * 5000, [], {}, {"part": 1}, {"shown": [1], "suffix": 1, "name": 1}]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("body", BODIES)
def test_bodies_that_no_page_sends_are_no_fault_of_the_server(page: Page, route: str, body: Any) -> None:
    reply = page.post(route, body)
    assert 400 <= reply.status_code < 500, reply.text
    assert os.getcwd() not in reply.text


@pytest.mark.parametrize("asked", STRANGE)
def test_the_sketchpad_s_questions_are_answered_whatever_they_are(asked: Any) -> None:
    for function in (shelf.take, shelf.lend, shelf.compose, shelf.film):
        assert set(function(asked)) == {"error"}


def test_a_picture_that_would_unpack_to_too_much_is_no_frame(own_files: None) -> None:
    large, small = publish(Image.new("RGB", (1100, 1100))), publish(Image.new("RGB", (64, 64)))
    run = {"suffix": ".webp", "name": "film"}
    assert "error" in shelf.film({**run, "shown": [large] * 200})
    assert "path" in shelf.film({**run, "shown": [small] * 2})


def number_in(said: str) -> str:
    found = re.search(r"error (\d{8})\.", said)
    assert found is not None, said
    return found.group(1)


def test_an_unexpected_error_gives_a_number_that_stands_in_the_log(
    page: Page, pipe: Pipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("/secret/place is broken")

    monkeypatch.setattr(pipe.model.sampler, "start", broken)
    with closing(Client(page.url, verbose=False)) as client, pytest.raises(AppError) as caught:
        client.predict(image=handle_file(page.picture), area="centre", api_name="/edit")
    number = number_in(str(caught.value))
    assert "secret" not in str(caught.value)
    (entry,) = [record for record in caplog.records if number in record.getMessage()]
    assert entry.levelno == logging.ERROR and entry.exc_info is not None
    answer = answering(broken)()
    assert set(answer) == {"error"} and number_in(answer["error"]) in caplog.text and "secret" not in answer["error"]


def test_uploads_and_edits_leave_no_empty_files(page: Page) -> None:
    for mask in (None, UPLOADED):
        assert "event: complete" in page.call("edit", [UPLOADED, mask, "centre", "", 1, None, 1])
    assert [path.name for path in page.folder.rglob("*") if path.is_file() and path.stat().st_size == 0] == []
