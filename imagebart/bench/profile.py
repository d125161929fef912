"""Where the time of a pass goes: the answer to why it takes longer than reading the weights."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

from imagebart.bench.models import Subject
from imagebart.sampling.packed_linear import Engine, Precision, engine_of, threads, trial

ROWS = (4, 16)  # tokens of a pass
PASSES = 10
# Parts of the names of PyTorch's operators, by what they are for; the first that fits counts.
PURPOSES: dict[str, tuple[str, ...]] = {
    "weights": ("mkldnn::_linear", "quantized::linear", "aten::addmm", "aten::mm"),
    "attention": ("scaled_dot_product", "aten::bmm", "softmax"),
    "norms, GELU": ("layer_norm", "gelu"),
    "copies, sums": ("copy_", "aten::add", "aten::mul", "aten::cat", "fill", "index", "embedding", "quantize"),
}


@dataclass(frozen=True)
class Share:
    """A pass over some rows: seconds, and seconds of it by purpose; the rest is Python and PyTorch's dispatch."""

    subject: str
    rows: int
    threads: int
    seconds: float
    parts: dict[str, float]


@torch.no_grad()
def shares(subjects: Sequence[Subject], precision: Precision) -> Iterator[Share]:
    """Passes of each subject's decoder at the last positions, under what draws fastest at a precision."""
    for subject in subjects:
        engine = engine_of(precision, subject.step.networks[0])
        yield from (_share(subject.name, engine, rows) for rows in ROWS)


def _share(name: str, engine: Engine, rows: int) -> Share:
    count, once = engine.threads(rows), trial(engine.decoder, rows)
    with threads(count):
        once()
        taken = []
        for _ in range(PASSES):
            began = time.perf_counter()
            once()
            taken.append(time.perf_counter() - began)
        with profile(activities=[ProfilerActivity.CPU]) as watched:
            for _ in range(PASSES):
                once()
    parts = dict.fromkeys(PURPOSES, 0.0)
    for event in watched.key_averages():
        purpose = next((p for p, names in PURPOSES.items() if any(name in event.key for name in names)), None)
        if purpose is not None:
            parts[purpose] += event.self_cpu_time_total / 1e6 / PASSES
    return Share(name, rows, count, sorted(taken)[PASSES // 2], parts)
