"""The page on a pipeline, served by this process, or by one of its own, for tests of many people at once; and a relay.

As a program, `page_server.py FOLDER` prints the page's address, and stops when its input closes. Lines of its log are
JSON arrays: a run's seed, what happened ("begun", "event", "ended"), and when on the clock that all processes share.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from fake_models import WatchedPipeline
from tiny_models import tiny_staged_model

import imagebart
from imagebart.pipeline import Pipeline
from imagebart.ui.models import Example, Models
from imagebart.ui.page import build_page, launch_page


def free_port() -> int:
    """One that no server had before: a page that is still open would ask this one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@contextlib.contextmanager
def served(
    pipeline: Pipeline, examples: Sequence[Example] = (), models: Path | None = None, **options: Any
) -> Iterator[str]:
    """The address of the page of a pipeline, and of the models of a folder; closed at the end."""
    page, port = build_page(Models(pipeline, examples, models)), free_port()
    _, url, _ = launch_page(
        page, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", server_port=port, **options
    )
    try:
        yield url
    finally:
        page.close(verbose=False)


@dataclass
class Server:
    """A page in a process of its own, and its folder."""

    url: str
    pid: int
    folder: Path

    def rss(self) -> float:
        """Resident memory in MB."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8"))
        return int(found.group(1)) / 1000

    def runs(self) -> dict[int, list[tuple[str, float]]]:
        """By the seed of a run: what happened, and when."""
        found: dict[int, list[tuple[str, float]]] = {}
        for seed, what, at in map(json.loads, (self.folder / "log").read_text().splitlines()):
            found.setdefault(seed, []).append((what, at))
        return found


@contextlib.contextmanager
def page_process(folder: Path) -> Iterator[Server]:
    """A server that keeps its files in `folder`, stopped at the end by closing its input."""
    # The child finds the very package that is tested here, also where another checkout is installed.
    path = os.pathsep.join(filter(None, [str(Path(imagebart.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    settings = {"PYTHONPATH": path, "GRADIO_TEMP_DIR": str(folder / "imagebart-files")}
    settings |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_ANALYTICS_MAX_EVENTS": "100"}  # as in ui/__init__.py
    command, pipes = [sys.executable, __file__, str(folder)], {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=os.environ | settings, text=True, **pipes) as process:
        yield Server(process.stdout.readline().strip(), process.pid, folder)


class LoggingPipeline(WatchedPipeline):
    def note(self, what: str, seed: int | None) -> None:
        with Path(sys.argv[1], "log").open("a") as log:  # one short write a line: threads do not mix them up
            log.write(json.dumps([seed, what, time.monotonic()]) + "\n")


@contextlib.contextmanager
def relayed(port: int, url: str) -> Iterator[None]:
    """At a port bytes are passed on to the server of `url`; at the end all breaks off, as if that one had stopped."""
    target = urlsplit(url).hostname, urlsplit(url).port
    connected: list[socket.socket] = []

    def pass_on(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                browser, server = listener.accept()[0], socket.create_connection(target)
                connected.extend([browser, server])
                threading.Thread(target=pass_on, args=(browser, server), daemon=True).start()
                threading.Thread(target=pass_on, args=(server, browser), daemon=True).start()

    with socket.create_server(("127.0.0.1", port)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield
        finally:
            for line in (listener, *connected):
                with contextlib.suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with served(LoggingPipeline(tiny_staged_model("text", 6))) as address:
        print(address, flush=True)
        sys.stdin.read()
        os._exit(0)  # as when app.py ends, connections break off
