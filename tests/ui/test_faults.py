"""What happens when something breaks: the visitor leaves, an upload ends halfway, the disk is full, the queue is."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from gradio_client.utils import QueueError
from PIL import Image
from serving import Server, serving

from imagebart.ui.app import QUEUE
from imagebart.ui.files import AGES, tidy

API = "gradio_api"
PATIENCE = 60.0
# Enough that a run is still going on when it is given up.
STAGES = 24
# Runs that are given up and runs that are to be finished: a picture of this prompt takes the model a while.
LONG = "a woman with a hat"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), STAGES) as running:
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
    """Ask for a picture, as a program does; the number of the request."""
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
    requests = [ask(server, 40 + number) for number in range(QUEUE + 1)]
    until(lambda: queued(server) <= QUEUE, "the first to be drawn")
    requests += [ask(server, 70 + number) for number in range(QUEUE - queued(server))]
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
    return httpx.post(f"{server.url}{API}/upload", files={"files": ("picture.png", content)}, timeout=PATIENCE)


def partly_arrived(server: Server) -> list[Path]:
    return list(server.files.glob("tmp*"))


def test_an_upload_that_breaks_off_leaves_nothing(server: Server, client: Client) -> None:
    address = urlsplit(server.url)
    assert address.hostname is not None and address.port is not None
    head = (
        f"POST /{API}/upload HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 1000000\r\n"
        "Content-Type: multipart/form-data; boundary=edge\r\n\r\n--edge\r\n"
        'Content-Disposition: form-data; name="files"; filename="picture.png"\r\n\r\n'
    )
    with socket.create_connection((address.hostname, address.port)) as line:
        line.sendall(head.encode() + b"half" * 1000)
        until(lambda: partly_arrived(server), "the first half")
    # The server goes on, and tidies up what never came to its end.
    client.predict(prompt="", seed=50, api_name="/generate")
    tidy(server.files, time.time() + AGES["tmp"] + 1)
    assert partly_arrived(server) == []


def test_a_file_that_is_too_large_is_refused(server: Server) -> None:
    reply = upload(server, bytes(41 * 2**20))
    assert reply.status_code == 413 and "maximum allowed size" in reply.text
    assert partly_arrived(server) == []


@contextmanager
def full_disk(server: Server) -> Iterator[None]:
    """No file of the server can grow beyond a few bytes, as on a disk without room."""
    before = resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_and_all_is_well_once_there_is_room(server: Server, client: Client) -> None:
    picture = BytesIO()
    Image.effect_noise((64, 64), 50).save(picture, "PNG")
    with full_disk(server):
        reply = upload(server, picture.getvalue())
        assert reply.status_code == 507 and "no room for pictures" in reply.text
        with pytest.raises(AppError, match="no room for pictures"):
            client.predict(prompt="", seed=60, api_name="/generate")
    assert queued(server) == 0 and server.happened(60)[-1] == "ended"
    assert upload(server, picture.getvalue()).status_code == 200
    assert client.predict(prompt="", seed=61, api_name="/generate")[1] == "done"
