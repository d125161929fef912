"""Requests that no page sends: each is refused in a sentence, without a traceback, and tells nothing of the server."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from asking import FILE, UPLOADED, Page, asking
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from imagebart.pipeline import Pipeline
from imagebart.testing import tiny_pipeline
from imagebart.ui import errors as mishaps
from imagebart.ui import messages as wording
from imagebart.ui.errors import answering
from imagebart.ui.files import NO_ROOM, publish
from imagebart.ui.sketchpad import stored_images as shelf


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


def test_a_session_that_is_not_there_is_said_and_no_connection_is_cut(
    page: Page, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for route in ("call/generate/nothing", "queue/data?session_hash=nothing"):
        reply = httpx.get(f"{page.url}gradio_api/{route}", timeout=60)
        assert reply.status_code in (200, 404) and "404" in reply.text + str(reply.status_code)
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err + caplog.text


def test_no_browser_runs_what_was_uploaded(page: Page) -> None:
    for name in ("x.html", "x.svg", "x"):
        path = httpx.post(f"{page.url}gradio_api/upload", files={"files": (name, b"<script>")}).json()[0]
        reply = httpx.get(f"{page.url}gradio_api/file={path}")
        assert reply.headers["content-disposition"].startswith("attachment")


def test_what_has_no_end_is_refused_while_it_arrives(page: Page) -> None:
    for most, route, files in ((mishaps.MOST_ASKED, "call/generate", 0), (mishaps.MOST_UPLOADED, "upload", 2)):
        body: dict[str, Any] = {"content": (b"x" * 2**20 for _ in range(most // 2**20 + 1))}
        if files:
            body = {"files": [("files", (f"{i}.png", bytes(most // files))) for i in range(files)]}
        reply = httpx.post(f"{page.url}gradio_api/{route}", timeout=60, **body)
        assert reply.status_code == 413 and reply.json() == {"detail": wording.TOO_MUCH}
    assert not [path for path in page.folder.rglob("tmp*") if path.is_file()], "nothing is left of what was refused"
    assert "event: complete" in page.call("generate", ["a hat", 1, None, 1])


def test_uploads_leave_room_for_results(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    def upload() -> httpx.Response:
        return httpx.post(f"{page.url}gradio_api/upload", files={"files": ("picture.png", b"x")})

    assert upload().status_code == 200
    monkeypatch.setattr(mishaps, "RESERVE", 2**62)  # more than this disk has
    assert upload().status_code == 507 and upload().json() == {"detail": NO_ROOM}


MANY = """
import re, threading
from pathlib import Path
from PIL import Image
from imagebart.ui.files import publish
from imagebart.ui.sketchpad import shelf
def highest(): return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1000
path = publish(Image.new("L", (6000, 4000)))
shelf.take(path)
before = highest()
people = [threading.Thread(target=shelf.take, args=[path]) for _ in range(10)]
for person in people: person.start()
for person in people: person.join()
print(highest() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux keeps account of memory there")
def test_many_large_pictures_are_not_unpacked_at_once(tmp_path: Path) -> None:
    command, place = [sys.executable, "-c", MANY], {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=place)
    assert int(done.stdout) < 200, "one takes 100 MB"


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
