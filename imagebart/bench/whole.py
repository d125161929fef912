"""A published model from the outside: seconds for a picture, a masked edit and their first previews, and memory.

Beside them the original's way, which has no cache: of a stage's 256 forwards one in sixteen is timed.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image

from imagebart.atomic_io import write_text
from imagebart.bench.machine import cpu_name, peak_memory
from imagebart.bench.measure import naive_seconds
from imagebart.bench.models import Subject
from imagebart.imaging.masks import preset
from imagebart.pipeline import Pipeline, PipelineEvent
from imagebart.sampling.steps import Condition
from imagebart.settings import SamplingSettings

MASK = "centre"  # a quarter of the picture
EVERY = 0.02  # seconds between looks at memory
STATUS = Path("/proc/self/status")

HEADINGS = (
    "model", "ready", "whole picture", "its first preview", "25 % mask", "its first preview", "memory of its own",
    "with mapped files", "the original's way", "times",
)  # fmt: skip


@dataclass(frozen=True)
class Figures:
    """Seconds, and bytes at the peak."""

    name: str
    machine: str
    load: float  # until it can draw
    whole: float
    whole_preview: float
    masked: float
    masked_preview: float
    own: int  # what no file could be read for again; 0 where the system does not tell
    memory: int  # with what of the files happened to be in memory
    original: float  # a whole picture, drawn as in 2021


def measure_whole(folder: Path) -> Figures:
    """Of the model in a folder. Peaks of memory are the process's: a process should measure one model."""
    with _own_memory() as own:
        began = time.perf_counter()
        pipe = Pipeline.from_pretrained(folder)
        load = time.perf_counter() - began
        prompt = pipe.classes[0] if pipe.classes else None
        size = (pipe.image_size, pipe.image_size)
        whole = _timed(pipe.generate(prompt, seed=0))
        masked = _timed(pipe.edit(Image.new("RGB", size, "grey"), preset(MASK, size), prompt, seed=0))
        memory = round(1e9 * peak_memory())
    machine = f"{cpu_name()}, {torch.get_num_threads()} threads"
    return Figures(pipe.name, machine, load, *whole, *masked, own[0], memory, _original(pipe))


def _timed(run: Iterable[PipelineEvent]) -> tuple[float, float]:
    """Seconds until the result, and until the first preview."""
    began, first = time.perf_counter(), None
    for event in run:
        if first is None and event.kind != "start":
            first = time.perf_counter() - began
    taken = time.perf_counter() - began
    return taken, taken if first is None else first


@torch.no_grad()
def _original(pipe: Pipeline) -> float:
    """Seconds for the tokens of a whole picture as the original draws them, in float32, and for the picture."""
    model, total = pipe.model, 0.0
    model.sampler.engines.made.clear()  # their memory goes before that of copies comes
    cond = model.conditioner.encode([pipe.classes[0]]).tokens if pipe.classes else None
    for step in model.sampler.steps(SamplingSettings()):
        copied = deepcopy(step)  # a stage at a time
        for network in filter(None, copied.networks):
            network.float()  # as the original has them
        total += naive_seconds(Subject("", copied, model.tokens, Condition(cond, None), SamplingSettings()))
        del copied
    began = time.perf_counter()
    model.first_stage.decode(torch.zeros(1, model.tokens, dtype=torch.long))
    return total + time.perf_counter() - began


@contextmanager
def _own_memory() -> Iterator[list[int]]:
    """[bytes]: the most that this process held of its own meanwhile, looked at every now and then."""
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(EVERY):
            found = re.search(r"RssAnon:\s+(\d+)", STATUS.read_text())
            peak[0] = max(peak[0], 1024 * int(found[1]) if found else 0)

    thread = threading.Thread(target=watch, daemon=True)
    if STATUS.is_file():
        thread.start()
    try:
        yield peak
    finally:
        done.set()


def keep(figures: Figures, path: Path) -> list[Figures]:
    """Adds figures to a file, in place of older ones of the model; returns all that it has."""
    kept = [Figures(**one) for one in json.loads(path.read_text(encoding="utf-8"))] if path.is_file() else []
    kept = [one for one in kept if one.name != figures.name] + [figures]
    write_text(path, json.dumps([asdict(one) for one in kept], indent=1) + "\n")
    return kept


def whole_table(rows: Iterable[Figures]) -> Iterator[str]:
    """The lines of a Markdown table: seconds and GB."""
    yield "| " + " | ".join(HEADINGS) + " |"
    yield "|---|" + "---:|" * (len(HEADINGS) - 1)
    for row in rows:
        seconds = [f"{s:.1f}" for s in (row.load, row.whole, row.whole_preview, row.masked, row.masked_preview)]
        memory = [f"{size / 1e9:.1f} GB" if size else "" for size in (row.own, row.memory)]
        cells = [f"`{row.name}`", *seconds, *memory, f"{row.original:.0f}", f"{row.original / row.whole:.0f}"]
        yield "| " + " | ".join(cells) + " |"
