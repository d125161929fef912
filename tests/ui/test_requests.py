"""Bad requests, each refused in a sentence; what SECURITY.md promises; and what happens when something breaks."""

from __future__ import annotations

import ipaddress
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from gradio_client.utils import QueueError
from page_process import Server, page_process
from page_server import UPLOADED, PageClient, served_to_client
from PIL import Image
from tiny_models import tiny_pipeline

from imagebart.pipeline import Pipeline
from imagebart.ui.files import publish
from imagebart.ui.page import MAX_QUEUE

ABROAD: list[Any] = []  # what this process asked of other machines
WATCHED = False


def watch(event: str, values: tuple[Any, ...]) -> None:
    """Notes names that are looked up and addresses that are connected to, but for those of this machine."""
    if WATCHED and event in ("socket.getaddrinfo", "socket.connect", "socket.sendto", "socket.gethostbyname"):
        host = values[1][0] if event in ("socket.connect", "socket.sendto") else values[0]
        if not at_home(host):
            ABROAD.append((event, host))


def at_home(host: Any) -> bool:
    if not host or host in ("localhost", b"localhost", "0.0.0.0", "::"):
        return True
    try:
        return ipaddress.ip_address(host if isinstance(host, str) else host.decode()).is_loopback
    except ValueError:
        return False


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def page(pipe: Pipeline) -> Iterator[PageClient]:
    """A page whose process is watched from its start to its end."""
    global WATCHED
    sys.addaudithook(watch)
    WATCHED = True
    with served_to_client(pipe) as page:
        assert ABROAD == [], "the page asks other machines as it starts"
        yield page
    WATCHED = False


def test_what_is_wrong_is_named(page: PageClient) -> None:
    assert "The strength is None in a recipe to vary; a variation has one" in page.call(
        "vary", [UPLOADED, None, "", 1, None, 1]
    )
    assert "There is no image; give a" in page.call("edit", [None, None, "centre", "", 1, None, 1, False])
    assert "The prompt is 3; it must be a text" in page.call("generate", [3, 1, None, 1])
    assert "no ready mask [1]; choose one of upper half" in page.call(
        "edit", [UPLOADED, None, [1], "", 1, None, 1, False]
    )


def test_an_unexpected_error_says_nothing_of_the_server(
    page: PageClient, pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("/secret/place is broken")

    monkeypatch.setattr(pipe.model.sampler, "prepare", broken)
    said = page.call("generate", ["a hat", 1, None, 1])
    assert "event: error" in said and "secret" not in said


def test_nothing_leaves_the_machine(page: PageClient) -> None:
    ABROAD.clear()  # of what clients in this process asked
    watch("socket.getaddrinfo", ("example.org", 443))
    watch("socket.connect", (None, ("192.0.2.1", 80)))
    assert [host for _, host in ABROAD] == ["example.org", "192.0.2.1"], "the watch sees nothing"
    ABROAD.clear()
    assert httpx.get(page.url).status_code == 200
    assert "event: complete" in page.call("edit", [UPLOADED, None, "centre", "a hat", 1, None, 1, False])
    assert ABROAD == []


def test_files_have_names_that_nobody_guesses_and_no_list_names_them(page: PageClient) -> None:
    image = Image.new("RGB", (16, 16), "red")
    names = {Path(write(image)).name for write in (publish, publish)}
    assert len(names) == 2 and all(len(name.split("-")[1]) >= 12 for name in names)
    for folder in (page.folder, Path(page.image).parent, page.folder.parent):
        for route in ("file=", "file/"):
            reply = httpx.get(f"{page.url}gradio_api/{route}{folder}")
            assert reply.status_code >= 400 and Path(page.image).name not in reply.text


API = "gradio_api"
PATIENCE = 60.0
# Enough that a run is still going on when it is given up.
STAGES = 24
# Runs that are given up and runs that are to be finished: an image of this prompt takes the model a while.
LONG = "a woman with a hat"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with page_process(tmp_path_factory.mktemp("server"), STAGES) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    with closing(Client(server.url, verbose=False, download_files=False)) as client:
        yield client


def until(true: Callable[[], object], what: str) -> None:
    """Look again and again until something is true."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, f"it never came: {what}"
        time.sleep(0.02)


def ask(server: Server, seed: int) -> str:
    """Ask for an image, as a program does; the number of the request."""
    reply = httpx.post(f"{server.url}{API}/call/generate", json={"data": [LONG, seed, None, None]})
    reply.raise_for_status()
    return reply.json()["event_id"]


@contextmanager
def listening(server: Server, request: str) -> Iterator[Iterator[str]]:
    """The events of a request, line by line; leaving hangs up."""
    with httpx.stream("GET", f"{server.url}{API}/call/generate/{request}", timeout=PATIENCE) as stream:
        yield stream.iter_lines()


def test_a_visitor_who_leaves_frees_the_model(server: Server, client: Client) -> None:
    with listening(server, ask(server, 11)) as lines:
        assert any(line == "event: generating" for line in lines)
    assert "ended" not in server.happened(11), "the run was over before the visitor left"
    until(lambda: server.happened(11)[-1] == "ended", "the end of the run")
    # The one that was being made when the visitor left is the last.
    seen = server.happened(11).count("event")
    client.predict(prompt="", seed=12, api_name="/generate")
    assert server.happened(11).count("event") == seen < 2 * STAGES
    assert server.happened(12)[-1] == "ended"


def test_a_visitor_who_leaves_while_waiting_is_not_drawn(server: Server, client: Client) -> None:
    first = ask(server, 21)
    with listening(server, first) as lines:
        assert any(line == "event: generating" for line in lines)
        waiting = ask(server, 22)
        with listening(server, waiting):
            until(lambda: queued(server) == 1, "the second in the queue")
        until(lambda: queued(server) == 0, "an empty queue")
    client.predict(prompt="", seed=23, api_name="/generate")
    assert server.happened(22) == []


def queued(server: Server) -> int:
    """How many requests wait for the model."""
    return httpx.get(f"{server.url}{API}/queue/status").json()["queue_size"]


def test_those_who_wait_are_served_in_the_order_in_which_they_came(server: Server) -> None:
    seeds = [30, 32, 31]
    requests = [ask(server, seed) for seed in seeds]
    for request in requests:
        with listening(server, request) as lines:
            assert any(line == "event: complete" for line in lines)
    began = {seed: events[0][1] for seed, events in server.runs.items()}
    assert sorted(seeds, key=lambda seed: began[seed]) == seeds


def test_a_full_queue_is_said_and_those_in_it_stay(server: Server, client: Client) -> None:
    requests = [ask(server, 40 + number) for number in range(MAX_QUEUE + 1)]
    until(lambda: queued(server) <= MAX_QUEUE, "the first to be drawn")
    requests += [ask(server, 70 + number) for number in range(MAX_QUEUE - queued(server))]
    with pytest.raises(QueueError, match="full"):
        client.predict(prompt="", seed=99, api_name="/generate")
    number = next(n for n, endpoint in client.endpoints.items() if endpoint.api_name == "/generate")
    for request in requests[:-1]:
        cancel = {"session_hash": request, "fn_index": number, "event_id": request}
        httpx.post(f"{server.url}{API}/cancel", json=cancel).raise_for_status()
    with listening(server, requests[-1]) as lines:
        assert any(line == "event: complete" for line in lines)
    assert server.happened(99) == []


def upload(server: Server, content: bytes) -> httpx.Response:
    return httpx.post(f"{server.url}{API}/upload", files={"files": ("image.png", content)}, timeout=PATIENCE)


def test_a_file_that_is_too_large_is_refused(server: Server) -> None:
    reply = upload(server, bytes(41 * 2**20))
    assert reply.status_code == 413 and "maximum allowed size" in reply.text


@contextmanager
def full_disk(server: Server) -> Iterator[None]:
    """No file of the server can grow beyond a few bytes, as on a disk without room."""
    before = resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_and_all_is_well_once_there_is_room(server: Server, client: Client) -> None:
    image = BytesIO()
    Image.effect_noise((64, 64), 50).save(image, "PNG")
    before = set(server.files.glob("imagebart-*"))
    with full_disk(server):
        assert upload(server, image.getvalue()).status_code >= 400
        with pytest.raises(AppError, match="disk is full"):
            client.predict(prompt="", seed=60, api_name="/generate")
    assert queued(server) == 0 and server.happened(60)[-1] == "ended"
    assert set(server.files.glob("imagebart-*")) == before, "half an image is left"
    assert upload(server, image.getvalue()).status_code == 200
    assert client.predict(prompt="", seed=61, api_name="/generate")
