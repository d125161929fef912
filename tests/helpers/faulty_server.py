"""A server of one file on the loopback with a list of faults, one for each request; after them it behaves."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants


@dataclass
class FaultyServer:
    """What it serves, how it answers the next requests, and the requests that it had, as headers and path."""

    content: bytes
    address: str = ""
    faults: list[Callable[[Answer], None]] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)


class Answer(BaseHTTPRequestHandler):
    """One answer."""

    protocol_version = "HTTP/1.1"
    state: FaultyServer

    def do_HEAD(self) -> None:
        """How long the file is; with an error where one is next."""
        if self.state.faults and hasattr(self.state.faults[0], "status"):
            self.state.faults.pop(0)(self)
        else:
            self.begin(200, Content_Length=len(self.state.content))

    def do_GET(self) -> None:
        self.state.requests.append({name.lower(): value for name, value in self.headers.items()} | {"path": self.path})
        answer = self.state.faults.pop(0) if self.state.faults else behave
        answer(self)

    def log_message(self, *_: object) -> None:
        pass

    def begin(self, status: int, **headers: str | int) -> None:
        """The head of an answer that ends with the connection."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()

    def range(self) -> int:
        """Where the range begins that is asked for; 0 for all of the file."""
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        return int(found[1]) if found else 0


def behave(answer: Answer) -> None:
    """As a server should."""
    send(answer, len(answer.state.content))


def send(answer: Answer, end: int) -> None:
    """What is asked for, announced whole, but nothing from byte `end` on."""
    content, begin = answer.state.content, answer.range()
    if begin >= len(content):
        answer.begin(416, Content_Range=f"bytes */{len(content)}", Content_Length=0)
        return
    more = {"Content_Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"} if begin else {}
    answer.begin(206 if begin else 200, Content_Length=len(content) - begin, **more)
    answer.wfile.write(content[begin:end])


def breaking_off(end: int) -> Callable[[Answer], None]:
    """Closes the connection before byte `end`."""
    return lambda answer: send(answer, end)


def refusing(status: int) -> Callable[[Answer], None]:
    """An error, and no file."""

    def refuse(answer: Answer) -> None:
        answer.begin(status, Content_Length=0)

    refuse.status = status  # type: ignore[attr-defined]
    return refuse


@contextmanager
def serving_file(content: bytes) -> Iterator[FaultyServer]:
    """A server of this file, whatever its path."""
    state = FaultyServer(content)
    handler = type("Handler", (Answer,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    state.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def apart_from_the_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hugging Face's folder, a fresh one, and none of the network but the loopback's server."""
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"
