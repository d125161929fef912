"""The page on a tiny random model in a process of its own, for tests of many people at once and of faults; and a relay.

As a program, `page_process.py FILES`, this is that process: it prints the page's address, keeps temporary files in the
folder FILES, and stops when its input closes. Each further line is a JSON object: what happened ("begun", "event",
"ended"), in the run with which seed, and when on the machine's monotonic clock, which all processes share.
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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

import imagebart


@dataclass
class Server:
    """A running page, and what its model has done so far."""

    url: str
    pid: int
    files: Path
    """Its folder for temporary files."""
    runs: dict[int, list[tuple[str, float]]] = field(default_factory=dict)
    """By the seed of a run: what happened, and when."""

    def rss(self) -> float:
        """Resident memory in MB."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found.group(1)) / 1000

    def listen(self, output: TextIO) -> None:
        """Note what the server says its model does, until it stops; its complaints are passed on."""
        for line in output:
            if line.startswith('{"what"'):
                entry = json.loads(line)
                self.runs.setdefault(entry["seed"], []).append((entry["what"], entry["at"]))
            else:
                print("server:", line, end="")


@contextlib.contextmanager
def page_process(folder: Path) -> Iterator[Server]:
    """A server that keeps its temporary files in `folder`, stopped at the end by closing its input."""
    files = folder / "imagebart-files"
    # The child finds the very package that is tested here, also where another checkout is installed.
    path = os.pathsep.join(filter(None, [str(Path(imagebart.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(
        [sys.executable, __file__, str(files)], env=os.environ | {"PYTHONPATH": path}, **pipes
    ) as process:
        url = next((line.strip() for line in process.stdout if line.startswith("http")), None)
        assert url is not None, "the server did not start"
        server = Server(url, process.pid, files)
        listener = threading.Thread(target=server.listen, args=(process.stdout,), daemon=True)
        listener.start()
        try:
            yield server
        finally:
            process.stdin.close()
            listener.join(30)


class Relay:
    """Passes bytes on to one server after another, at one address, as if a server stopped and another came.

    Breaks off and refuses everything while there is none.
    """

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as place:
            self._port: int = place.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/"

    @contextlib.contextmanager
    def to(self, url: str) -> Iterator[None]:
        """The server of `url` is there until the end."""
        target = urlsplit(url).hostname, urlsplit(url).port
        connected: list[socket.socket] = []
        with socket.create_server(("127.0.0.1", self._port)) as listener:
            threading.Thread(target=self._accept, args=(listener, target, connected), daemon=True).start()
            try:
                yield
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                for line in connected:
                    with contextlib.suppress(OSError):
                        line.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket, target: tuple[str, int], connected: list[socket.socket]) -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                browser, _ = listener.accept()
                server = socket.create_connection(target)
                connected += [browser, server]
                for source, sink in ((browser, server), (server, browser)):
                    threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


def serve(files: str) -> None:
    """Serve the page, and print what the model does, until the input closes."""
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_ANALYTICS_MAX_EVENTS": "100"}  # as in ui/__init__.py
    os.environ["GRADIO_TEMP_DIR"] = files
    import torch
    from fake_models import WatchedPipeline
    from tiny_models import tiny_staged_model

    from imagebart.ui.models import Models
    from imagebart.ui.page import build_page, launch_page

    class ReportingPipeline(WatchedPipeline):
        def note(self, what: str, seed: int | None) -> None:
            # One short write a line: the threads of two runs do not mix them up.
            sys.stdout.write(json.dumps({"what": what, "seed": seed, "at": time.monotonic()}) + "\n")
            sys.stdout.flush()

    torch.set_num_threads(1)
    page = build_page(Models(ReportingPipeline(tiny_staged_model("text", 6))))
    _, url, _ = launch_page(page, prevent_thread_lock=True, server_name="127.0.0.1", quiet=True)
    print(url, flush=True)
    sys.stdin.read()
    os._exit(0)  # as when app.py ends, connections break off


if __name__ == "__main__":
    serve(sys.argv[1])
