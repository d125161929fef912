"""Many at once: sessions of `gradio_client` that generate, edit and cancel, and what becomes of their requests."""

from __future__ import annotations

import io
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from gradio_client import Client, handle_file
from gradio_client.client import Job
from page_process import Server
from PIL import Image

CANCELLED_SHARE = 0.25
PATIENCE = 120.0  # seconds after which an unanswered request counts as lost
SIZE = (48, 40)


@dataclass(frozen=True)
class Request:
    """One request and what became of it. Times are seconds on the monotonic clock."""

    seed: int
    asked: float
    first: float | None  # the first answer came
    cancelled: float | None  # the server had confirmed the cancel
    ended: float
    lost: str = ""  # what went wrong

    @property
    def done(self) -> bool:
        return not self.lost and self.cancelled is None


@dataclass
class Session:
    """One person: asks again and again until the end, and gives up a quarter of the requests at a random moment."""

    server: Server
    number: int
    upload: Path
    requests: list[Request] = field(default_factory=list)

    def run(self, until: float) -> list[Request]:
        client = Client(self.server.url, verbose=False, download_files=False, httpx_kwargs={"timeout": PATIENCE})
        chance = random.Random(self.number)
        while time.monotonic() < until:
            _at_rest(client)
            self.requests.append(self._ask(client, chance))
        client.close()
        return self.requests

    def _ask(self, client: Client, chance: random.Random) -> Request:
        seed = self.number * 100_000 + len(self.requests)
        editing = chance.random() < 0.5
        give_up = chance.random() < CANCELLED_SHARE
        asked = time.monotonic()
        job = self._submit(client, seed, editing)
        first: list[float] = []
        watcher = threading.Thread(target=_first_answer, args=(job, first), daemon=True)
        watcher.start()
        cancelled, lost = None, ""
        if give_up:
            if chance.random() < 0.5:
                watcher.join(PATIENCE)  # until it runs
                time.sleep(chance.random() * 0.3)
            else:
                time.sleep(chance.random() * 5)
            cancelled = _cancel(job)
        if cancelled is None:
            try:
                lost = self._wrong(job.result(timeout=PATIENCE), seed, editing)
            except Exception as error:
                lost = f"seed {seed}: {type(error).__name__}: {error}"
        ended = time.monotonic()
        watcher.join(5)
        return Request(seed, asked, first[0] if first else None, cancelled, ended, lost)

    def _submit(self, client: Client, seed: int, editing: bool) -> Job:
        if editing:
            upload = handle_file(str(self.upload))
            return client.submit(
                image=upload, mask=None, area="upper half", prompt="a hat", seed=seed, api_name="/edit"
            )
        return client.submit(prompt="a woman", seed=seed, api_name="/generate")

    def _wrong(self, image: dict[str, Any], seed: int, editing: bool) -> str:
        """What is wrong with an answer; "" where it is this session's own image."""
        if not image["path"].endswith(f"-{seed}.png"):
            return f"seed {seed}: the answer is {image['path']}"
        reply = httpx.get(image["url"], timeout=PATIENCE)
        if reply.status_code != 200:
            return f"seed {seed}: the image is gone ({reply.status_code})"
        pixels = np.asarray(Image.open(io.BytesIO(reply.content)).convert("RGB"))
        if editing:
            mine = np.asarray(Image.open(self.upload))
            lower = slice(SIZE[1] // 2, None)
            if pixels.shape != mine.shape or (pixels[lower] != mine[lower]).any():
                return f"seed {seed}: the image is another one's"
        return ""


def _at_rest(client: Client) -> None:
    """Wait until the client has hung up: gradio_client 2.7 cuts off a request that is sent at that very moment."""
    deadline = time.monotonic() + PATIENCE
    while client.stream_open and time.monotonic() < deadline:
        time.sleep(0.01)


def _first_answer(job: Job, first: list[float]) -> None:
    """Note when the first answer came."""
    with suppress(Exception):
        next(iter(job))
        first.append(time.monotonic())


def _cancel(job: Job) -> float | None:
    """Cancel a request that is not finished; when the server had confirmed it."""
    # The client can only cancel what the server has given a number.
    deadline = time.monotonic() + PATIENCE
    while job.communicator.event_id is None and not job.done() and time.monotonic() < deadline:
        time.sleep(0.01)
    if job.done():
        return None
    job.cancel()
    return time.monotonic()


def image_of(number: int, folder: Path) -> Path:
    """An image unlike those of the other sessions."""
    pixels = np.random.default_rng(number).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    path = folder / f"{number}.png"
    Image.fromarray(pixels).save(path)
    return path


@dataclass(frozen=True)
class Report:
    """What a load test measured."""

    seconds: float
    requests: list[Request]
    memory: list[tuple[float, float]]  # seconds since the start, MB
    started: set[int]  # seeds of the runs that the model began
    last: list[int]  # cancelled runs that finished the image that was being made
    late: list[str]  # cancelled runs that went on after it
    unfinished: list[int]  # runs that never ended

    def slope(self, warm_up: float) -> float:
        """MB a minute after the first `warm_up` seconds, by least squares."""
        times, sizes = np.array([point for point in self.memory if point[0] >= warm_up]).T
        return float(np.polyfit(times / 60, sizes, 1)[0])

    def text(self, warm_up: float) -> str:
        done = [request for request in self.requests if request.done]
        waits = [request.first - request.asked for request in done if request.first is not None] or [np.nan]
        whole = [request.ended - request.asked for request in done] or [np.nan]
        cancels = [request.seed for request in self.requests if request.cancelled is not None]
        warm = [size for moment, size in self.memory if moment >= warm_up]
        return (
            f"{self.seconds:.0f} s: {len(self.requests)} requests, {len(done)} answered, "
            f"{len(cancels)} cancelled ({len(self.started.intersection(cancels))} of them while they ran, "
            f"{len(self.last)} at the next image), "
            f"{sum(bool(request.lost) for request in self.requests)} lost; "
            f"first image after {np.percentile(waits, 50):.2f} s (p50), {np.percentile(waits, 95):.2f} s (p95); "
            f"result after {np.percentile(whole, 50):.2f} s (p50), {np.percentile(whole, 95):.2f} s (p95); "
            f"memory {warm[0]:.0f} MB after {warm_up:.0f} s, {warm[-1]:.0f} MB at the end, "
            f"slope {self.slope(warm_up):+.2f} MB a minute"
        )


def load(server: Server, seconds: float, sessions: int, folder: Path) -> Report:
    """Keep `sessions` sessions busy for some seconds, and see to it that each request is answered."""
    began = time.monotonic()
    people = [Session(server, number, image_of(number, folder)) for number in range(1, sessions + 1)]
    memory = []
    with ThreadPoolExecutor(sessions) as pool:
        futures = [pool.submit(person.run, began + seconds) for person in people]
        while not all(future.done() for future in futures):
            memory.append((time.monotonic() - began, server.rss()))
            time.sleep(0.5)
        requests = [request for future in futures for request in future.result()]
    runs = server.runs
    after = {
        request.seed: [what for what, at in runs.get(request.seed, []) if at > request.cancelled]
        for request in requests
        if request.cancelled is not None
    }
    # A cancel that comes while an image is being made, or just as the run begins, lets this one image be made.
    last = [seed for seed, events in after.items() if events.count("event") == 1]
    late = [f"seed {seed}: {events}" for seed, events in after.items() if events.count("event") > 1]
    unfinished = [seed for seed, events in runs.items() if events[-1][0] != "ended"]
    return Report(time.monotonic() - began, requests, memory, set(runs), last, late, unfinished)
