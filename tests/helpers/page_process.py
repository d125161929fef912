"""The page on a tiny random model in a process of its own, for tests of many people at once and of faults."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import imagebart


@dataclass
class Server:
    """A running page, and what its model has done so far."""

    url: str
    pid: int
    files: Path
    """Its folder for temporary files."""
    runs: dict[int, list[tuple[str, float]]] = field(default_factory=dict)
    """By the seed of a run: what happened ("begun", "event", "ended"), and when on the monotonic clock."""

    def rss(self) -> float:
        """Resident memory in MB."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found.group(1)) / 1000

    def happened(self, seed: int) -> list[str]:
        """What the model did in the run with this seed."""
        return [what for what, _ in self.runs.get(seed, [])]

    def listen(self, output: TextIO) -> None:
        """Note what the server says its model does, until it stops; its complaints are passed on."""
        for line in output:
            if line.startswith('{"what"'):
                entry = json.loads(line)
                self.runs.setdefault(entry["seed"], []).append((entry["what"], entry["at"]))
            else:
                print("server:", line, end="")


@contextmanager
def page_process(folder: Path, stages: int = 6, pause: float = 0.0, port: int | None = None) -> Iterator[Server]:
    """A server that keeps its temporary files in `folder`, stopped at the end by closing its input.

    pause: seconds that its model pauses after each event.
    """
    files = folder / "imagebart-files"
    command = [sys.executable, str(Path(__file__).with_name("serve_page.py")), str(files), str(stages), str(pause)]
    # The child finds the very package that is tested here, also where another checkout is installed.
    path = os.pathsep.join(filter(None, [str(Path(imagebart.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    # Pipes only: a test that lets the disk run full must still hear what the server says.
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    command += [] if port is None else [str(port)]
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, **pipes) as process:
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
