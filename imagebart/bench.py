"""How long decoding takes on this machine, each row against the naive way in the same run."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from imagebart.decoding import Condition, decode_stage, draw, gumbel_noise
from imagebart.model import ImageBART
from imagebart.settings import SamplingSettings
from imagebart.stage import Stage

SHARES = (1.0, 0.5, 0.25, 0.06)


@dataclass(frozen=True)
class Row:
    """One way to draw one stage's tokens."""

    stage: int
    share: float  # of tokens that are masked
    method: str
    seconds: float
    ratio: float  # times faster than naive
    passes: int


@torch.no_grad()
def naive(stage: Stage, c: Tensor, x: Tensor, keep: Tensor, condition: Condition, noise: Tensor) -> int:
    """As the original: every position drawn, everything before it computed anew. Returns the passes."""
    x, settings = x.clone(), SamplingSettings()
    for position in range(x.shape[1]):
        logits = stage.logits(x, c, condition.cond)[:, position]
        x[:, position] = torch.where(keep[:, position], x[:, position], draw(logits, noise[:, position], settings))
    return x.shape[1]


def cached(stage: Stage, c: Tensor, x: Tensor, keep: Tensor, condition: Condition, noise: Tensor) -> int:
    """With keys and values kept, but every position drawn."""
    return skipping(stage, c, x, torch.zeros_like(keep), condition, noise)


def skipping(stage: Stage, c: Tensor, x: Tensor, keep: Tensor, condition: Condition, noise: Tensor) -> int:
    """As the chain does it: known tokens are fed in runs, never drawn."""
    return sum(1 for _ in decode_stage(stage, c, x, keep, condition, SamplingSettings(), noise))


METHODS: dict[str, Callable[..., int]] = {"naive": naive, "cached": cached, "known tokens skipped": skipping}


def measure(model: ImageBART, repeats: int = 3) -> list[Row]:
    """The best of some runs of every method, for every stage and share of masked tokens, batch 1."""
    rows = []
    generator = torch.Generator().manual_seed(0)
    cond = model.conditioner.null(1) if model.conditioner.length else None
    condition = Condition(cond, None)
    c = torch.randint(model.vocab_size, (1, model.tokens), generator=generator)
    noise = gumbel_noise((model.tokens, model.vocab_size), [generator])
    for t, stage in enumerate(model.stages, 1):
        for share in SHARES:
            keep = torch.ones(1, model.tokens, dtype=torch.bool)
            first = round(model.tokens * (1 - share) / 2)  # a band in the middle, as a mask would be
            keep[:, first : first + round(model.tokens * share)] = False
            times: dict[str, tuple[float, int]] = {}
            for name, method in METHODS.items():
                runs = [_timed(method, stage, c, c, keep, condition, noise) for _ in range(repeats)]
                times[name] = min(runs)
            slow = times["naive"][0]
            rows += [Row(t, share, name, s, slow / s, passes) for name, (s, passes) in times.items()]
    return rows


def _timed(method: Callable[..., int], *arguments: object) -> tuple[float, int]:
    began = time.perf_counter()
    passes = method(*arguments)
    return time.perf_counter() - began, passes


def report(rows: list[Row]) -> str:
    """A table, with what it was measured on."""
    lines = [f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}, batch 1, fp32", ""]
    lines += ["| stage | masked | method | seconds | times naive | passes |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells = (row.stage, f"{row.share:.0%}", row.method, f"{row.seconds:.3f}", f"{row.ratio:.1f}", row.passes)
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def cpu_name() -> str:
    """The processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
