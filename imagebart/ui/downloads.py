"""Published models on their way to this machine, for the page's list of models; and how long edits take here.

A model is downloaded, converted and tried out in a process of its own, which takes no memory of the server's and can be
ended at any moment: what has come is kept, and the next process goes on from there (published/download.py).
A file NAME.wanted says that somebody waits for a model, so that a server that starts again goes on by itself.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from imagebart.atomic_io import format_bytes, write_text
from imagebart.errors import InputError
from imagebart.imaging.masks import MASK_SUFFIX, preset
from imagebart.imaging.metadata import write_png
from imagebart.pipeline import Pipeline
from imagebart.published.registry import MODELS, cache_dir, format_seconds, get_model, published_folder
from imagebart.ui import messages
from imagebart.weights import EXAMPLES

if TYPE_CHECKING:  # the server itself downloads and converts nothing
    from imagebart.published.download import DownloadProgress

UPDATE_INTERVAL = 0.25  # seconds between two updates of a progress line
NICENESS = 10  # of the process: runs on the page come first
MAX_EXAMPLES = 4
EXAMPLE_SECONDS = 60.0  # of computing for all examples of a model, also on a busy machine; one is always generated
QUARTER = 0.25  # of an image's tokens: the edit whose time is shown

log = logging.getLogger(__name__)


class EditTimes:
    """Seconds that an edit of a quarter of an image took on this machine, by the model's name; kept in a file."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._seconds: dict[str, float] = {}
        with suppress(OSError, ValueError, TypeError, AttributeError):
            stored = json.loads(path.read_text(encoding="utf-8")) if path else {}
            self._seconds = {str(name): float(seconds) for name, seconds in stored.items()}

    def get(self, name: str) -> float | None:
        """None where no edit was measured."""
        return self._seconds.get(name)

    def record(self, name: str, seconds: float, share: float) -> None:
        """An edit of a share of an image's tokens took so many seconds."""
        self._seconds[name] = round(seconds * QUARTER / share, 2)
        if self._path is not None:
            with suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                write_text(self._path, json.dumps(self._seconds))


@dataclass
class Download:
    """A model on its way, or what became of it."""

    line: str = messages.DOWNLOAD_STARTS
    fraction: float | None = None  # of the step that the line is about
    running: bool = True
    failed: bool = False


NO_DOWNLOAD = Download("", running=False)


@dataclass(frozen=True)
class Outcome:
    """The last that a process says: why it failed, or how long an edit of a quarter takes."""

    error: str = ""
    seconds: float | None = None


class Downloads:
    """The downloads of a server, one at a time. Threads may share it."""

    def __init__(self, allowed: bool = False, times: EditTimes | None = None) -> None:
        """allowed: whether people on the page may start any."""
        self.allowed = allowed
        self.times = times or EditTimes()
        self._lock = Lock()
        self._downloads: dict[str, Download] = {}
        self._process: BaseProcess | None = None  # of the one that goes on

    def all(self) -> dict[str, Download]:
        """The downloads since the server started, as they are now, by the model's name."""
        with self._lock:
            return {name: replace(download) for name, download in self._downloads.items()}

    def start(self, name: str) -> None:
        """Begins a download, or goes on with it. Raises InputError where it cannot begin."""
        if not self.allowed:
            raise InputError(messages.NO_DOWNLOADS)
        model = get_model(name)
        with self._lock:
            other = next((name for name, download in self._downloads.items() if download.running), None)
            if other is not None:
                raise InputError(messages.already_downloading(model.name, other))
            try:
                _wanted(model.name).parent.mkdir(parents=True, exist_ok=True)
                write_text(_wanted(model.name), "")
            except OSError as error:
                raise InputError(_without_folders(str(error))) from error
            receiver, sender = multiprocessing.Pipe(duplex=False)
            # Not a copy of this process, which has threads and a model in memory.
            process = multiprocessing.get_context("spawn").Process(target=_get, args=(model.name, sender), daemon=True)
            process.start()
            sender.close()
            self._process, download = process, Download()
            self._downloads[model.name] = download
        Thread(target=self._listen, args=(model.name, download, process, receiver), daemon=True).start()

    def cancel(self, name: str) -> None:
        """Ends a download; what has come is kept."""
        with self._lock:
            download, process = self._downloads.get(name), self._process
            if download is None or not download.running or process is None:
                return
            download.running, download.line, download.fraction = False, messages.DOWNLOAD_CANCELLED, None
            _wanted(name).unlink(missing_ok=True)
            process.terminate()
            process.join(5)
            process.kill()

    def resume(self) -> None:
        """Goes on with what was wanted when a server ended."""
        if self.allowed:
            for name in MODELS:
                if _wanted(name).is_file():
                    with suppress(InputError):
                        self.start(name)

    def _listen(self, name: str, download: Download, process: BaseProcess, receiver: Connection) -> None:
        outcome = None
        with suppress(EOFError, OSError), receiver:
            while True:
                received = receiver.recv()
                if isinstance(received, Outcome):
                    outcome = received
                elif download.running:
                    download.line, download.fraction = received
        process.join()
        with self._lock:
            if not download.running:  # cancelled
                return
            download.running, download.fraction = False, None
            _wanted(name).unlink(missing_ok=True)
            error = messages.DOWNLOAD_ENDED if outcome is None else outcome.error
            download.failed, download.line = bool(error), error or messages.DOWNLOAD_DONE
            if error:
                log.warning("%s: %s", name, error)
            elif outcome and outcome.seconds is not None:
                self.times.record(name, outcome.seconds, QUARTER)


def _wanted(name: str) -> Path:
    folder = published_folder(name)
    return folder.with_name(f"{folder.name}.wanted")


def _without_folders(sentence: str) -> str:
    """A sentence for people who need not know where this machine keeps its files."""
    return sentence.replace(str(cache_dir()), "the server's cache")


# What the process does.


class PipeProgress:
    """Progress as a line and a fraction, for the server's process."""

    def __init__(self, send: Callable[[Any], None]) -> None:
        self._send = send
        self._sent = 0.0

    def start(self, what: str, total: int | None, done: int) -> None:
        self._what, self._total, self._done = what, total, done
        self._first, self._began = done, time.monotonic()
        self._report()

    def advance(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._sent > UPDATE_INTERVAL:
            self._report()

    def say(self, sentence: str) -> None:
        self._send((_without_folders(sentence), None))

    def _report(self) -> None:
        self._sent = time.monotonic()
        line, fraction = f"{self._what}: {format_bytes(self._done)}", None
        if self._total:
            fraction = self._done / self._total
            line += f" of {format_bytes(self._total)}"
            speed = (self._done - self._first) / max(self._sent - self._began, 0.1)
            if speed:
                line += f", {format_bytes(int(speed))}/s, {format_seconds((self._total - self._done) / speed)} left"
        self._send((line, fraction))


def _get(name: str, sender: Connection) -> None:
    """The process: says how far it is, and in the end its outcome."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the server ends this process
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    sender.send(fetch(name, PipeProgress(sender.send)))


def fetch(name: str, progress: DownloadProgress) -> Outcome:
    """Has a published model ready to use, with examples."""
    from imagebart.published.download import ensure_model

    try:
        return Outcome(seconds=add_examples(ensure_model(name, progress=progress), progress))
    except (OSError, ValueError) as error:  # each says in a sentence what is wrong
        return Outcome(_without_folders(str(error)))
    except Exception:
        log.exception("%s cannot be used", name)
        return Outcome(messages.DOWNLOAD_ENDED)


def add_examples(folder: Path, progress: DownloadProgress) -> float | None:
    """Generates examples for a model that has none; seconds for a quarter of an image, None where it has some."""
    examples = folder / EXAMPLES
    if next(examples.glob("*.png"), None):
        return None
    examples.mkdir(exist_ok=True)
    pipeline, seconds = Pipeline.from_pretrained(folder), []
    classes, began = pipeline.classes, time.thread_time()
    for seed in range(MAX_EXAMPLES):
        # Classes from all over the list: neighbors show similar things.
        prompt = classes[(2 * seed + 1) * len(classes) // (2 * MAX_EXAMPLES)] if classes else None
        for event in pipeline.generate(prompt, seed=seed):
            progress.say(messages.example_line(seed + 1, MAX_EXAMPLES, event))
        seconds.append(event.elapsed)
        name = re.sub(r"\W+", "-", prompt or "generated by this model").strip("-")
        path = examples / f"{seed + 1}-{name}.png"
        mask = preset("centre", event.image.size)
        mask.save(path.with_name(path.stem + MASK_SUFFIX))
        write_png(event.image, path, event.recipe)
        if (time.thread_time() - began) * (seed + 2) / (seed + 1) > EXAMPLE_SECONDS:
            break
    return QUARTER * min(seconds)
