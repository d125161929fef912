"""Sixteen people at once: no request is lost, every cancel frees the model, memory and files do not pile up.

`make load` takes three minutes, `make soak` ten; a short one is part of every test run. The figures are printed
(`pytest -s`).
"""

import io
import json
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from page_server import Server, page_process
from PIL import Image

from imagebart.ui.files import MAX_AGE, MAX_AGES, TIDY_INTERVAL

SESSIONS = 16
GIVEN_UP = 0.25  # of the requests
PATIENCE = 120.0  # seconds after which an unanswered request counts as lost
SIZE = (48, 40)


class Session:
    """One person, who generates and edits an image of their own again and again, and gives up some at any moment."""

    def __init__(self, url: str, functions: dict[str, int], number: int) -> None:
        self.number, self.functions, self.chance = number, functions, random.Random(number)
        self.http = httpx.Client(base_url=f"{url}gradio_api/", timeout=PATIENCE)
        self.pixels = np.random.default_rng(number).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(self.pixels).save(file, "PNG")
        (path,) = self.http.post("upload", files={"files": ("image.png", file.getvalue())}).json()
        self.upload = {"path": path, "meta": {"_type": "gradio.FileData"}}

    def run(self, until: float) -> dict[int, float | None]:
        """Asks for images; by the seed of each, when the server had confirmed its cancel."""
        requests: dict[int, float | None] = {}
        while time.monotonic() < until:
            seed = self.number * 100_000 + len(requests)
            requests[seed] = self.ask(seed)
        return requests

    def ask(self, seed: int) -> float | None:
        """Fails where the request is lost, or its answer is not this session's own."""
        name, cancelled = self.chance.choice(["edit", "generate"]), None
        data = ["a woman", seed] if name == "generate" else [self.upload, None, "upper half", "a hat", seed]
        data += [None, None] if name == "generate" else [None, None, False]
        request = self.http.post(f"call/{name}", json={"data": data}).json()["event_id"]
        cancel = {"session_hash": request, "fn_index": self.functions[name], "event_id": request}
        moment = self.chance.choice(["waiting", "running"]) if self.chance.random() < GIVEN_UP else ""
        if moment == "waiting":
            time.sleep(self.chance.random() * 2)
            assert self.http.post("cancel", json=cancel).json()["success"]
            cancelled = time.monotonic()
        event, answered = "", False
        with self.http.stream("GET", f"call/{name}/{request}") as stream:
            for line in stream.iter_lines():
                kind, _, value = line.partition(": ")
                event = value if kind == "event" else event
                if kind == "data" and event == "complete" and value != "null":
                    self.check(seed, name, json.loads(value)[0])
                    answered, cancelled = True, None  # Cancel came too late
                elif event == "generating" and moment == "running" and cancelled is None:
                    assert httpx.post(f"{self.http.base_url}cancel", json=cancel, timeout=PATIENCE).json()["success"]
                    cancelled = time.monotonic()
        assert event == "complete" and (answered or cancelled), f"seed {seed} was lost: {event}"
        return cancelled

    def check(self, seed: int, name: str, image: dict[str, str]) -> None:
        assert image["path"].endswith(f"-{seed}.png")
        reply = httpx.get(image["url"], timeout=PATIENCE)
        pixels = np.asarray(Image.open(io.BytesIO(reply.raise_for_status().content)).convert("RGB"))
        if name == "edit":
            assert (pixels[SIZE[1] // 2 :] == self.pixels[SIZE[1] // 2 :]).all(), "it is another one's image"


def load(server: Server, seconds: float) -> list[tuple[float, float]]:
    """Keeps the server busy, checks what becomes of each request, and prints the figures.

    Returns the server's memory: seconds since the start, and MB.
    """
    config = httpx.get(f"{server.url}config", timeout=PATIENCE).json()
    functions = {function["api_name"]: function["id"] for function in config["dependencies"]}
    people = [Session(server.url, functions, number) for number in range(1, SESSIONS + 1)]
    began, memory = time.monotonic(), []
    with ThreadPoolExecutor(SESSIONS) as pool:
        futures = [pool.submit(person.run, began + seconds) for person in people]
        while not all(future.done() for future in futures):
            memory.append((time.monotonic() - began, server.rss()))
            time.sleep(0.5)
        requests = {seed: moment for future in futures for seed, moment in future.result().items()}
    cancelled = {seed: moment for seed, moment in requests.items() if moment is not None}
    assert cancelled and len(cancelled) < len(requests)
    runs = server.runs()
    for seed, moment in cancelled.items():
        after = [what for what, at in runs.get(seed, []) if at > moment]
        # A cancel that comes while an image is being made, or just as the run begins, lets this one image be made.
        assert after.count("event") <= 1, f"the run of {seed} went on after its cancel was confirmed"
    assert [seed for seed, events in runs.items() if events[-1][0] != "ended"] == []
    print(f"{len(requests)} requests, {len(cancelled)} cancelled; {memory[0][1]:.0f} to {memory[-1][1]:.0f} MB")
    return memory


@pytest.mark.slow
def test_sixteen_at_once_for_a_moment(tmp_path: Path) -> None:
    with page_process(tmp_path) as server:
        load(server, 3)


@pytest.mark.load
@pytest.mark.parametrize(
    ("seconds", "most"), [(180, 6.0), pytest.param(float(os.environ.get("SOAK", "600")), 3.75, id="soak")]
)
def test_sixteen_at_once_for_minutes(tmp_path: Path, seconds: float, most: float) -> None:
    """SOAK: the length of the long one in seconds; one of less than three minutes says nothing of memory.

    most: MB a minute that a server may gain once it is warm.
    """
    with page_process(tmp_path) as server:
        memory = load(server, seconds)
        for path in filter(Path.is_file, (tmp_path / "imagebart-files").rglob("*")):
            stated = next((age for start, age in MAX_AGES.items() if path.name.startswith(start)), MAX_AGE)
            assert path.stat().st_size > 0, path
            assert time.time() - path.stat().st_ctime <= stated + 2 * TIDY_INTERVAL, f"{path} should be gone"
    times, sizes = np.array([point for point in memory if point[0] >= seconds / 3]).T
    growth = float(np.polyfit(times / 60, sizes, 1)[0])
    print(f"{growth:+.2f} MB a minute after the first third")
    assert seconds < 180 or growth < most
