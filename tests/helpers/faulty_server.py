"""A server of one file on the loopback with a list of faults, one for each request; after them it behaves.

Then it knows ranges, If-Range and ETag.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO

import pytest
from huggingface_hub import constants


@dataclass
class FaultyServer:
    """What it serves, how it answers the next requests, and the requests that it had, as headers and path."""

    content: bytes
    address: str = ""
    faults: list[Callable[[Answer], None]] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.content).hexdigest()}"'

    @property
    def length(self) -> int:
        return len(self.content)

    def copy(self, target: BinaryIO, begin: int, end: int) -> None:
        """Writes bytes begin to end of the file."""
        target.write(self.content[begin:end])


class Answer(BaseHTTPRequestHandler):
    """One answer."""

    protocol_version = "HTTP/1.1"
    state: FaultyServer

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
        """Where the range begins that is asked for, of the version there is; 0 for all of the file."""
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        return int(found[1]) if found and self.headers.get("if-range") == self.state.etag else 0


def behave(answer: Answer) -> None:
    """As a server should."""
    send(answer, answer.state.length)


def send(answer: Answer, end: int) -> None:
    """What is asked for, announced whole, but nothing from byte `end` on."""
    state, begin = answer.state, answer.range()
    total = state.length
    if begin >= total:
        answer.begin(416, Content_Range=f"bytes */{total}", Content_Length=0)
        return
    more = {"Content_Range": f"bytes {begin}-{total - 1}/{total}"} if begin else {}
    answer.begin(206 if begin else 200, ETag=state.etag, Content_Length=total - begin, **more)
    state.copy(answer.wfile, begin, end)


def breaking_off(end: int) -> Callable[[Answer], None]:
    """Closes the connection before byte `end`."""
    return lambda answer: send(answer, end)


def holding(end: int, let_go: threading.Event) -> Callable[[Answer], None]:
    """Sends nothing from byte `end` on until it is let go; then the connection ends."""

    def hold(answer: Answer) -> None:
        send(answer, end)
        answer.wfile.flush()
        let_go.wait(60)

    return hold


def refusing(status: int, **headers: str | int) -> Callable[[Answer], None]:
    """An error, and no file."""
    return lambda answer: answer.begin(status, Content_Length=0, **headers)


def changing(content: bytes) -> Callable[[Answer], None]:
    """Another file lies there from now on."""

    def change(answer: Answer) -> None:
        answer.state.content = content
        behave(answer)

    return change


def claiming(length: int) -> Callable[[Answer], None]:
    """All of the file, of a length that it has not."""

    def claim(answer: Answer) -> None:
        answer.begin(200, ETag=answer.state.etag, Content_Length=length)
        answer.wfile.write(answer.state.content)

    return claim


def serving_file(content: bytes) -> AbstractContextManager[FaultyServer]:
    """A server of this file, whatever its path."""
    return serving(FaultyServer(content))


@contextmanager
def serving(state: FaultyServer) -> Iterator[FaultyServer]:
    """A server of its file, whatever its path."""
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
    monkeypatch.delenv("IMAGEBART_MIRRORS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"
