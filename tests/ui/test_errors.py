"""Bad requests, each refused in a sentence; what SECURITY.md promises; and what happens when something breaks."""

from __future__ import annotations

import ipaddress
import logging
import os
import platform
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from gradio_client.utils import QueueError
from page_process import Server, page_process
from page_server import FILE, UPLOADED, PageClient, served_to_client
from PIL import Image
from tiny_models import tiny_pipeline

from imagebart.pipeline import Pipeline
from imagebart.ui import errors, messages
from imagebart.ui.app import MAX_QUEUE
from imagebart.ui.errors import answering
from imagebart.ui.files import MAX_AGES, publish, publish_preview, release_memory, tidy
from imagebart.ui.sketchpad import stored_images

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
    assert "must be a number over 0 and at most 1" in page.call("vary", [UPLOADED, None, "", 1, None, 1])
    assert "There is no image; give a PNG" in page.call("edit", [None, None, "centre", "", 1, None, 1, False])
    assert "The prompt is 3; it must be a text" in page.call("generate", [3, 1, None, 1])
    assert "no ready mask [1]; choose one of upper half" in page.call(
        "edit", [UPLOADED, None, [1], "", 1, None, 1, False]
    )
    assert "was not uploaded" in page.call("edit", [{**FILE, "path": ""}, None, "centre", "", 1, None, 1, False])
    assert "Invalid request" in page.call("generate", [])


@pytest.mark.parametrize(
    "address", ["", "x", "http://a b/", "http://[::1/", "https://\u00ad.hf.space", "http://%00/", "http://a:b/"]
)
def test_the_way_to_other_servers_is_closed(page: PageClient, address: str) -> None:
    for method in ("GET", "HEAD"):
        reply = httpx.request(method, f"{page.url}gradio_api/proxy={address}")
        assert reply.status_code == 404


ROUTES = ["component_server", "queue/join", "call/generate", "call/v2/nothing", "run/nothing", "cancel"]
BODIES = [{}, [], {"data": 3}, {"component_id": 10**9, "fn_name": "open_image", "session_hash": "a"}, "x"]
STRANGE = [None, 3, "a\0b", "x" * 5000, [], {}, {"part": 1}, {"shown": [1], "suffix": 1, "name": 1}]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("body", BODIES)
def test_bodies_that_no_page_sends_are_no_fault_of_the_server(page: PageClient, route: str, body: Any) -> None:
    reply = page.post(route, body)
    assert 400 <= reply.status_code < 500, reply.text
    assert os.getcwd() not in reply.text


@pytest.mark.parametrize("asked", STRANGE)
def test_the_sketchpad_s_questions_are_answered_whatever_they_are(asked: Any) -> None:
    for function in (stored_images.open_image, stored_images.link_token, stored_images.compose, stored_images.animate):
        assert set(function(asked)) == {"error"}


def test_an_image_that_would_unpack_to_too_much_is_no_frame(own_files: None) -> None:
    large, small = publish(Image.new("RGB", (1100, 1100))), publish(Image.new("RGB", (64, 64)))
    run = {"suffix": ".webp", "name": "film"}
    assert "error" in stored_images.animate({**run, "shown": [large] * 200})
    assert "path" in stored_images.animate({**run, "shown": [small] * 2})


def test_a_session_that_is_not_there_is_said_and_no_connection_is_cut(
    page: PageClient, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for route in ("call/generate/nothing", "queue/data?session_hash=nothing"):
        reply = httpx.get(f"{page.url}gradio_api/{route}", timeout=60)
        assert reply.status_code in (200, 404) and "404" in reply.text + str(reply.status_code)
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err + caplog.text


def test_requests_that_break_off_and_functions_of_javascript_alone_log_no_traceback(
    page: PageClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    address = urlsplit(page.url)
    head = (
        f"POST /gradio_api/upload HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 1000000\r\n"
        "Content-Type: multipart/form-data; boundary=edge\r\n\r\n--edge\r\n"
    )
    with socket.create_connection((address.hostname, address.port)) as line:
        line.sendall(head.encode())
    for _ in range(100):
        if "broke off" in caplog.text:
            break
        time.sleep(0.05)
    assert "a request to /gradio_api/upload broke off" in caplog.text
    functions = httpx.get(f"{page.url}config").json()["dependencies"]
    script = next(one for one in functions if not one["backend_fn"] and not one["inputs"])
    assert "Invalid request" in page.post("run/predict", {"data": [], "fn_index": script["id"]}).text
    assert "Traceback" not in caplog.text


def test_no_browser_runs_what_was_uploaded(page: PageClient) -> None:
    for name in ("x.html", "x.svg", "x"):
        path = httpx.post(f"{page.url}gradio_api/upload", files={"files": (name, b"<script>")}).json()[0]
        reply = httpx.get(f"{page.url}gradio_api/file={path}")
        assert reply.headers["content-disposition"].startswith("attachment")


def test_what_has_no_end_is_refused_while_it_arrives(page: PageClient) -> None:
    for most, route, files in ((errors.MAX_REQUEST, "call/generate", 0), (errors.MAX_UPLOAD, "upload", 2)):
        body: dict[str, Any] = {"content": (b"x" * 2**20 for _ in range(most // 2**20 + 1))}
        if files:
            body = {"files": [("files", (f"{i}.png", bytes(most // files))) for i in range(files)]}
        reply = httpx.post(f"{page.url}gradio_api/{route}", timeout=60, **body)
        assert reply.status_code == 413 and reply.json() == {"detail": messages.TOO_LARGE}
    assert not [path for path in page.folder.rglob("tmp*") if path.is_file()], "nothing is left of what was refused"
    assert "event: complete" in page.call("generate", ["a hat", 1, None, 1])


def test_uploads_leave_room_for_results(page: PageClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def upload() -> httpx.Response:
        return httpx.post(f"{page.url}gradio_api/upload", files={"files": ("image.png", b"x")})

    assert upload().status_code == 200
    monkeypatch.setattr(errors, "RESERVED_DISK", 2**62)  # more than this disk has
    assert upload().status_code == 507 and upload().json() == {"detail": messages.DISK_FULL}


MANY = """
import re, threading
from pathlib import Path
from PIL import Image
from imagebart.ui.files import publish
from imagebart.ui.sketchpad import stored_images
def highest(): return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1000
path = publish(Image.new("L", (6000, 4000)))
stored_images.open_image(path)
before = highest()
people = [threading.Thread(target=stored_images.open_image, args=[path]) for _ in range(5)]
for person in people: person.start()
for person in people: person.join()
print(highest() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux keeps account of memory there")
def test_many_large_images_are_not_decoded_at_once(tmp_path: Path) -> None:
    command, place = [sys.executable, "-c", MANY], {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=place)
    assert int(done.stdout) < 200, "one takes 100 MB"


def test_others_are_served_while_a_file_is_read(page: PageClient) -> None:
    """A float TIFF and a WebP of nearly the largest size: decoding, converting and scaling them takes a second."""
    components = httpx.get(f"{page.url}config").json()["components"]
    (sketchpad,) = (part["id"] for part in components if "open_image" in part["props"].get("server_fns", []))

    def ask(function: str, path: str) -> dict[str, Any]:
        body = {"component_id": sketchpad, "fn_name": function, "session_hash": "a", "data": path}
        return dict(httpx.post(f"{page.url}gradio_api/component_server", json=body, timeout=60).json())

    noise = np.random.default_rng(0).integers(0, 255, (3500, 4500), np.uint8)
    for image, kind, options in (
        (Image.new("F", (8000, 5000), 0.5), "TIFF", {"compression": "tiff_adobe_deflate"}),
        (Image.fromarray(noise), "WEBP", {"quality": 60, "method": 0}),
    ):
        file = BytesIO()
        image.save(file, kind, **options)
        files = {"files": (f"image.{kind.lower()}", file.getvalue())}
        (path,) = httpx.post(f"{page.url}gradio_api/upload", files=files).json()
        answers: list[dict[str, Any]] = []
        reader = Thread(target=lambda path=path, put=answers.append: put(ask("open_image", path)))
        start = moment = time.monotonic()
        longest, count = 0.0, 0
        reader.start()
        while reader.is_alive():
            assert "token" in ask("link_token", page.image)
            longest, moment, count = max(longest, time.monotonic() - moment), time.monotonic(), count + 1
        assert answers[0]["image"]["width"] == image.width
        assert count >= 4 and longest < (moment - start) / 2, (kind, count, longest, moment - start)


def resident() -> float:
    """MB of this process."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) / 1000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's account of memory")
def test_freed_memory_is_given_back() -> None:
    kept = [bytes(1000) for _ in range(100_000)]  # larger than what Python keeps itself
    del kept[:-1]  # the last one holds the heap's end where it is
    before = resident()
    release_memory()
    assert before - resident() > 50


def number_in(said: str) -> str:
    found = re.search(r"error (\d{8})\.", said)
    assert found is not None, said
    return found.group(1)


def test_an_unexpected_error_gives_a_number_that_stands_in_the_log(
    page: PageClient, pipe: Pipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("/secret/place is broken")

    monkeypatch.setattr(pipe.model.sampler, "prepare", broken)
    with closing(Client(page.url, verbose=False)) as client, pytest.raises(AppError) as caught:
        client.predict(image=handle_file(page.image), area="centre", api_name="/edit")
    number = number_in(str(caught.value))
    assert "secret" not in str(caught.value)
    (entry,) = [record for record in caplog.records if number in record.getMessage()]
    assert entry.levelno == logging.ERROR and entry.exc_info is not None
    answer = answering(broken)()
    assert set(answer) == {"error"} and number_in(answer["error"]) in caplog.text and "secret" not in answer["error"]


def test_uploads_and_edits_leave_no_empty_files(page: PageClient) -> None:
    for mask in (None, UPLOADED):
        assert "event: complete" in page.call("edit", [UPLOADED, mask, "centre", "", 1, None, 1, False])
    assert [path.name for path in page.folder.rglob("*") if path.is_file() and path.stat().st_size == 0] == []


def test_nothing_leaves_the_machine(page: PageClient) -> None:
    ABROAD.clear()  # of what clients in this process asked
    watch("socket.getaddrinfo", ("example.org", 443))
    watch("socket.connect", (None, ("192.0.2.1", 80)))
    assert [host for _, host in ABROAD] == ["example.org", "192.0.2.1"], "the watch sees nothing"
    ABROAD.clear()
    assert httpx.get(page.url).status_code == 200
    assert "event: complete" in page.call("edit", [UPLOADED, None, "centre", "a hat", 1, None, 1, False])
    assert ABROAD == []


def test_no_address_of_this_machine_is_asked_for_an_image(page: PageClient) -> None:
    asked: list[str] = []

    class Noting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

    with ThreadingHTTPServer(("127.0.0.1", 0), Noting) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0.0.0.0"):
            url = f"http://{host}:{port}/x.png"
            for file in ({**FILE, "path": url}, {**FILE, "path": "", "url": url}, {**FILE, "path": url, "url": url}):
                said = page.call("edit", [file, None, "centre", "", 1, None, 1, False])
                assert "event: complete" not in said and "Traceback" not in said
        assert asked == []
        httpx.get(f"http://127.0.0.1:{port}/seen")
        assert asked == ["/seen"]
        server.shutdown()


def test_files_have_names_that_nobody_guesses_and_no_list_names_them(page: PageClient) -> None:
    image = Image.new("RGB", (16, 16), "red")
    names = {Path(write(image)).name for write in (publish, publish, publish_preview, publish_preview)}
    assert len(names) == 4 and all(len(name.split("-")[1]) >= 12 for name in names)
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


def partly_arrived(server: Server) -> list[Path]:
    return list(server.files.glob("tmp*"))


def test_an_upload_that_breaks_off_leaves_nothing(server: Server, client: Client) -> None:
    address = urlsplit(server.url)
    assert address.hostname is not None and address.port is not None
    head = (
        f"POST /{API}/upload HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 1000000\r\n"
        "Content-Type: multipart/form-data; boundary=edge\r\n\r\n--edge\r\n"
        'Content-Disposition: form-data; name="files"; filename="image.png"\r\n\r\n'
    )
    with socket.create_connection((address.hostname, address.port)) as line:
        line.sendall(head.encode() + b"half" * 1000)
        until(lambda: partly_arrived(server), "the first half")
    # The server goes on, and tidies up what never came to its end.
    client.predict(prompt="", seed=50, api_name="/generate")
    tidy(server.files, time.time() + MAX_AGES["tmp"] + 1)
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
    image = BytesIO()
    Image.effect_noise((64, 64), 50).save(image, "PNG")
    before = set(server.files.glob("imagebart-*"))
    with full_disk(server):
        reply = upload(server, image.getvalue())
        assert reply.status_code == 507 and "disk is full" in reply.text
        with pytest.raises(AppError, match="disk is full"):
            client.predict(prompt="", seed=60, api_name="/generate")
    assert queued(server) == 0 and server.happened(60)[-1] == "ended"
    assert set(server.files.glob("imagebart-*")) == before, "half an image is left"
    assert upload(server, image.getvalue()).status_code == 200
    assert client.predict(prompt="", seed=61, api_name="/generate")[1] == "done"
