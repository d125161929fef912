"""What `SECURITY.md` promises of a running page: nothing leaves the machine, and nobody finds another's files."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from asking import FILE, UPLOADED, Page, asking
from PIL import Image

from imagebart.testing import tiny_pipeline
from imagebart.ui.files import publish, publish_preview

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
def page() -> Iterator[Page]:
    """A page whose process is watched from its start to its end."""
    global WATCHED
    sys.addaudithook(watch)
    WATCHED = True
    with asking(tiny_pipeline()) as page:
        yield page
    WATCHED = False


def test_nothing_leaves_the_machine(page: Page) -> None:
    watch("socket.getaddrinfo", ("example.org", 443))
    watch("socket.connect", (None, ("192.0.2.1", 80)))
    assert [host for _, host in ABROAD] == ["example.org", "192.0.2.1"], "the watch sees nothing"
    ABROAD.clear()
    assert httpx.get(page.url).status_code == 200
    assert "event: complete" in page.call("edit", [UPLOADED, None, "centre", "a hat", 1, None, 1])
    assert ABROAD == []


def test_no_address_of_this_machine_is_asked_for_a_picture(page: Page) -> None:
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
                said = page.call("edit", [file, None, "centre", "", 1, None, 1])
                assert "event: complete" not in said and "Traceback" not in said
        assert asked == []
        httpx.get(f"http://127.0.0.1:{port}/seen")
        assert asked == ["/seen"]
        server.shutdown()


def test_files_have_names_that_nobody_guesses_and_no_list_names_them(page: Page) -> None:
    image = Image.new("RGB", (16, 16), "red")
    names = {Path(write(image)).name for write in (publish, publish, publish_preview, publish_preview)}
    assert len(names) == 4 and all(len(name.split("-")[1]) >= 12 for name in names)
    for folder in (page.folder, Path(page.picture).parent, page.folder.parent):
        for route in ("file=", "file/"):
            reply = httpx.get(f"{page.url}gradio_api/{route}{folder}")
            assert reply.status_code >= 400 and Path(page.picture).name not in reply.text
