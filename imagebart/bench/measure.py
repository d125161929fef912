"""Times ways to draw a stage's tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from imagebart.bench.machine import bytes_per_second, peak_memory
from imagebart.bench.models import Subject
from imagebart.decoding import Condition, GuidedRun, decode_stage, draw, gumbel_noise
from imagebart.inference import Network
from imagebart.matrices import Packing, Precision, brain, half, int8, plain
from imagebart.preparation import Preparation, Prepared, prepare
from imagebart.settings import SamplingSettings
from imagebart.stage import Stage
from imagebart.windows import OneByOne, Windows

SHARES = (1.0, 0.5, 0.25, 0.06)  # of the tokens that are masked
BATCHES = (1, 4)
EVERY = 16  # of the naive way's forwards, one in this many is timed
LONG_RUN = 2.0  # seconds; such a run is not repeated
ROUNDED: tuple[Precision, ...] = ("rounded", "int8")
SCALES = (1, 2, 3, 4, 5)  # T
BYTES: dict[Packing, int] = {half: 2, brain: 2, int8: 1}  # of a weight; else 4
NAMES: dict[Packing, str] = {half: "+ float16 weights", brain: "+ bfloat16", int8: "+ int8"}


@dataclass(frozen=True)
class Row:
    """One way to draw one stage's tokens."""

    subject: str
    batch: int
    share: float
    tokens: int  # masked, a variant
    method: str
    seconds: float
    naive: float  # seconds
    passes: int
    start: float  # seconds of what is computed once, the encoder first of all
    limit: float  # seconds that reading the weights of a pass takes
    same: float  # share of the drawn tokens that the naive way draws too
    memory: float  # GB, the process's peak so far

    @property
    def over_limit(self) -> float:
        """Time per pass over the time to read its weights."""
        return (self.seconds - self.start) / self.passes / self.limit


class Given(Preparation):
    """What was prepared elsewhere."""

    def __init__(self, prepared: Prepared) -> None:
        super().__init__()
        self.prepared = prepared

    def get(self, precision: Precision, decoder: nn.Module, encoder: nn.Module | None = None) -> Prepared:
        return self.prepared


@dataclass(frozen=True)
class _Task:
    """Tokens to draw: c, x, keep [B, N], noise [B, N, K]."""

    stage: Stage
    c: Tensor
    keep: Tensor
    condition: Condition
    settings: SamplingSettings
    noise: Tensor

    def run(self, windows: Callable[[], Windows | None]) -> tuple[float, int, Tensor]:
        """The shorter of two runs, if the first was short: seconds, passes, tokens."""
        runs: list[tuple[float, int, Tensor]] = []
        while len(runs) < (2 if not runs or runs[0][0] < LONG_RUN else 1):
            began, passes, tokens = time.perf_counter(), 0, self.c
            arguments = (self.stage, self.c, self.c, self.keep, self.condition, self.settings, self.noise)
            for drawn in decode_stage(*arguments, windows()):
                passes, tokens = drawn.forwards, drawn.tokens
            runs.append((time.perf_counter() - began, passes, tokens))
        return min(runs, key=lambda run: run[0])

    def start(self, prepared: Prepared) -> float:
        """Seconds of what is computed once, the shorter of two."""
        runs = []
        self.stage.preparation = Given(prepared)
        for _ in range(2):
            began = time.perf_counter()
            GuidedRun(self.stage, self.c, self.condition, self.settings.guidance)
            runs.append(time.perf_counter() - began)
        self.stage.preparation = Preparation()
        return min(runs)


@torch.no_grad()
def measure(subjects: Sequence[Subject], shares: Sequence[float], batches: Sequence[int]) -> Iterator[Row]:
    """Rows as they are measured: every way to draw, for each subject, batch and share of masked tokens."""
    for subject in subjects:
        stage = subject.stage
        maps = {name: m for name, m in stage.decoder.named_modules() if isinstance(m, nn.Linear)}
        numbers = sum(m.weight.numel() for name, m in maps.items() if not name.endswith("cross.kv"))
        exact = prepare("exact", stage.decoder)
        encoder = getattr(stage, "encoder", None)
        rounded = [prepare(precision, stage.decoder, encoder) for precision in ROUNDED]
        count = torch.get_num_threads()
        simple = Prepared(Network(stage.decoder, plain), {count: exact.costs[count]}, plain)
        limits = {size: size * numbers / bytes_per_second(size * numbers) for size in (1, 2, 4)}
        for batch in batches:
            whole = _task(subject, 1.0, batch)
            slow = naive(whole)
            starts = {prepared.packing: whole.start(prepared) for prepared in (exact, simple, *rounded)}
            for share in shares:
                task = _task(subject, share, batch)
                ways: list[tuple[str, _Task, Prepared, Callable[[], Windows | None]]] = [
                    ("cached", whole, simple, OneByOne),
                    ("+ known tokens skipped", task, simple, OneByOne),
                    ("+ drafts", task, exact, lambda: None),
                ]
                done = {exact.packing}
                for prepared in rounded:
                    if prepared.packing not in done:
                        ways.append((NAMES[prepared.packing], task, prepared, lambda: None))
                        done.add(prepared.packing)
                tokens, memory = int((~task.keep[0]).sum()), peak_memory()
                about = (subject.name, batch, share, tokens)
                yield Row(*about, "naive", slow, slow, whole.c.shape[1], starts[plain], limits[4], 1.0, memory)
                for name, what, prepared, windows in ways:
                    stage.preparation = Given(prepared)
                    seconds, passes, result = what.run(windows)
                    limit, same = limits[BYTES.get(prepared.packing, 4)], as_naive(what, result)
                    once = starts[prepared.packing]
                    yield Row(*about, name, seconds, slow, passes, once, limit, same, peak_memory())
                    stage.preparation = Preparation()


def naive(task: _Task) -> float:
    """Seconds as the original does it: the encoder once, then every position in turn, all before it computed anew.

    One in EVERY positions is computed, and counts for as many.
    """
    stage, settings = task.stage, task.settings
    guided = settings.guidance != 1 and task.condition.null is not None and stage.config.cond_length > 0
    conditions = [task.condition.cond, task.condition.null] if guided else [task.condition.cond]
    total = 0.0
    for cond in conditions:
        began = time.perf_counter()
        context = stage.start(task.c, cond)
        total += time.perf_counter() - began
        encoded = None
        if stage.config.encoder is not None:
            encoded = torch.zeros(len(task.c), stage.config.encoder.positions, stage.config.encoder.width)
        for position in range(EVERY // 2, task.c.shape[1], EVERY):
            began = time.perf_counter()
            memory = None if encoded is None else stage.decoder.memory(encoded)
            fed = torch.cat([context.prefix, task.c[:, :position]], 1)
            extra = None if context.extra is None else context.extra[:, : fed.shape[1]]
            hidden = stage.decoder(fed, memory, extra)
            assert stage.decoder.head is not None
            logits = stage.finish(stage.decoder.head(hidden[:, -1:]), task.c[:, position : position + 1])
            draw(logits[:, 0], task.noise[:, position], settings)
            total += EVERY * (time.perf_counter() - began)
    return total


def as_naive(task: _Task, tokens: Tensor) -> float:
    """The share of drawn tokens that the naive way draws after the same ones before; if all, it draws the same."""
    cond, null = task.condition.cond, task.condition.null
    logits = task.stage.logits(tokens, task.c, cond)
    if task.settings.guidance != 1 and null is not None and task.stage.config.cond_length:
        without = task.stage.logits(tokens, task.c, null)
        logits = without + task.settings.guidance * (logits - without)
    same = draw(logits, task.noise, task.settings) == tokens
    return float(same[~task.keep].float().mean())


def images_per_second(subjects: Sequence[Subject]) -> dict[int, float]:
    """Images a second, one at a time, for chains of T stages: the coarsest subject, and the finest at every beta."""
    coarsest, finest = subjects
    first = _task(coarsest, 1.0, 1).run(lambda: None)[0]
    config = finest.stage.config
    seconds: dict[int, float] = {}
    for parts in range(2, max(SCALES) + 1):  # beta = 1 / parts
        finest.stage.config = replace(config, beta=1 / parts)
        seconds[parts] = _task(finest, 1.0, 1).run(lambda: None)[0]
    finest.stage.config = config
    return {scales: 1 / (first + sum(seconds[parts] for parts in range(2, scales + 1))) for scales in SCALES}


def _task(subject: Subject, share: float, batch: int) -> _Task:
    """A band of masked tokens in the middle, as a mask would be; the same picture for every variant."""
    config = subject.stage.config
    generators = [torch.Generator().manual_seed(seed) for seed in range(batch)]
    c = torch.randint(config.vocab_size, (1, config.tokens), generator=generators[0]).expand(batch, -1)
    keep = torch.ones(batch, config.tokens, dtype=torch.bool)
    first = round(config.tokens * (1 - share) / 2)
    keep[:, first : first + round(config.tokens * share)] = False
    both = (subject.condition.cond, subject.condition.null)
    condition = Condition(*(part if part is None else part.expand(batch, -1) for part in both))
    noise = gumbel_noise((config.tokens, config.vocab_size), generators)
    return _Task(subject.stage, c, keep, condition, subject.settings, noise)

