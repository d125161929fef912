"""Times ways to draw a step's tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from imagebart.bench.machine import bytes_per_second, peak_memory
from imagebart.bench.models import Subject
from imagebart.models.imagebart import ImageBART
from imagebart.sampling.logits import filter_logits, guided, gumbel_noise
from imagebart.sampling.packed_linear import Engine, Kernel, Network, brain, engine_of, half, plain
from imagebart.sampling.sampler import row_generators, uniform_tokens
from imagebart.sampling.speculative import DraftLength, OneByOne, draw_step
from imagebart.sampling.steps import Condition, GuidedRun, Step
from imagebart.settings import SamplingSettings

SHARES = (1.0, 0.5, 0.25, 0.06)  # of the tokens that are masked
BATCHES = (1, 4)
EVERY = 16  # of the naive way's forwards, one in this many is timed
LONG_RUN = 2.0  # seconds; such a run is not repeated
SCALES = (1, 2, 3, 4, 8)  # T
BYTES: dict[Kernel, int] = {half: 2, brain: 2}  # of a weight; else 4
NAMES: dict[Kernel, str] = {half: "+ float16 weights", brain: "+ bfloat16"}


@dataclass(frozen=True)
class Row:
    """One way to draw one step's tokens."""

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


@dataclass(frozen=True)
class _Task:
    """Tokens to draw: c, x, keep [B, N], noise [B, N, K]."""

    step: Step
    c: Tensor
    keep: Tensor
    condition: Condition
    settings: SamplingSettings
    noise: Tensor

    def run(self, engine: Engine, ahead: Callable[[], DraftLength | None]) -> tuple[float, int, Tensor]:
        """The shorter of two runs, if the first was short: seconds, passes, tokens."""
        runs: list[tuple[float, int, Tensor]] = []
        while len(runs) < (2 if not runs or runs[0][0] < LONG_RUN else 1):
            began, passes, tokens = time.perf_counter(), 0, self.c
            given = (self.step, engine, self.c, None, self.doubt, self.condition, self.settings, self.noise)
            for drawn in draw_step(*given, ahead()):
                passes, tokens = drawn.forwards, drawn.tokens
            runs.append((time.perf_counter() - began, passes, tokens))
        return min(runs, key=lambda run: run[0])

    def start(self, engine: Engine) -> float:
        """Seconds of what is computed once, the shorter of two."""
        runs = []
        for _ in range(2):
            began = time.perf_counter()
            GuidedRun(self.step, engine, self.c, self.doubt, self.condition, self.settings.guidance)
            runs.append(time.perf_counter() - began)
        return min(runs)

    @property
    def doubt(self) -> Tensor:
        """As `Step.start` takes it."""
        return (~self.keep).float()

    @property
    def conditions(self) -> list[Tensor | None]:
        """Those that a position is computed under."""
        cond, null = self.condition.cond, self.condition.null
        guided = self.settings.guidance != 1 and null is not None and cond is not None and cond.shape[1] > 0
        return [cond, null] if guided else [cond]


@torch.no_grad()
def measure(subjects: Sequence[Subject], shares: Sequence[float], batches: Sequence[int]) -> Iterator[Row]:
    """Rows as they are measured: every way to draw, for each subject, batch and share of masked tokens."""
    for subject in subjects:
        decoder, encoder = subject.step.networks
        maps = {name: m for name, m in decoder.named_modules() if isinstance(m, nn.Linear)}
        numbers = sum(m.weight.numel() for name, m in maps.items() if not name.endswith("cross.kv"))
        exact, rounded = engine_of("exact", decoder), engine_of("rounded", decoder, encoder)
        count = torch.get_num_threads()
        simple = Engine(Network(decoder, plain), {count: exact.costs[count]}, plain)
        limits = {size: size * numbers / bytes_per_second(size * numbers) for size in (2, 4)}
        for batch in batches:
            whole = _task(subject, 1.0, batch)
            slow = naive(whole)
            starts = {engine.kernel: whole.start(engine) for engine in (exact, simple, rounded)}
            for share in shares:
                task = _task(subject, share, batch)
                ways: list[tuple[str, _Task, Engine, Callable[[], DraftLength | None]]] = [
                    ("cached", whole, simple, OneByOne),
                    ("+ known tokens skipped", task, simple, OneByOne),
                    ("+ drafts", task, exact, lambda: None),
                ]
                if rounded.kernel is not exact.kernel:
                    ways.append((NAMES[rounded.kernel], task, rounded, lambda: None))
                tokens, memory = int((~task.keep[0]).sum()), peak_memory()
                about = (subject.name, batch, share, tokens)
                yield Row(*about, "naive", slow, slow, whole.c.shape[1], starts[plain], limits[4], 1.0, memory)
                for name, what, engine, ahead in ways:
                    seconds, passes, result = what.run(engine, ahead)
                    limit, same = limits[BYTES.get(engine.kernel, 4)], as_naive(what, result)
                    yield Row(*about, name, seconds, slow, passes, starts[engine.kernel], limit, same, peak_memory())


def naive(task: _Task) -> float:
    """Seconds as the original does it: the encoder once, then every position in turn, all before it computed anew.

    One in EVERY positions is computed, and counts for as many.
    """
    step, total = task.step, 0.0
    decoder, encoder = step.networks
    assert decoder.head is not None
    for cond in task.conditions:
        began = time.perf_counter()
        context = step.start(task.c, task.doubt, cond, None)
        total += time.perf_counter() - began
        encoded = None
        if encoder is not None:
            encoded = torch.zeros(len(task.c), encoder.config.positions, encoder.config.width)
        for position in range(EVERY // 2, task.c.shape[1], EVERY):
            began = time.perf_counter()
            memory = None if encoded is None else decoder.memory(encoded)
            fed = torch.cat([context.prefix, task.c[:, :position]], 1)
            extra = None if context.extra is None else context.extra[:, : fed.shape[1]]
            here = task.c[:, position : position + 1]
            doubt = task.doubt[:, position : position + 1]
            logits = step.finish(decoder.head(decoder(fed, extra, memory)[:, -1:]), here, doubt)
            _drawn(task, logits, here, doubt, task.noise[:, position : position + 1])
            total += EVERY * (time.perf_counter() - began)
    return total


def naive_seconds(subject: Subject) -> float:
    """`naive` for all tokens of one picture."""
    return naive(_task(subject, 1.0, 1))


def as_naive(task: _Task, tokens: Tensor) -> float:
    """The share of drawn tokens that the naive way draws after the same ones before; if all, it draws the same."""
    step, (decoder, _) = task.step, task.step.networks
    assert decoder.head is not None
    found = []
    for cond in task.conditions:
        context = step.start(task.c, task.doubt, cond, None)
        hidden = decoder(torch.cat([context.prefix, tokens[:, :-1]], 1), context.extra, context.memory)
        found.append(step.finish(decoder.head(hidden[:, context.prefix.shape[1] - 1 :]), task.c, task.doubt))
    logits = found[0] if len(found) == 1 else guided(torch.cat(found), task.settings.guidance)
    same = _drawn(task, logits, task.c, task.doubt, task.noise) == tokens
    return float(same[~task.keep].float().mean())


def _drawn(task: _Task, logits: Tensor, c: Tensor, doubt: Tensor, noise: Tensor) -> Tensor:
    """Tokens [B, S] from logits, x_t, its doubt and noise at their positions."""
    return (task.step.reverse(filter_logits(logits, task.settings), c, doubt) + noise).argmax(-1)


def images_per_second(model: ImageBART, cond: Tensor | None, batch: int = 1) -> dict[int, float]:
    """Images a second, so many at a time, by T, the number of scales (ImageBART, Fig. 8, right).

    A model of T stages begins at each of them in turn, from noise. cond: int64 [1, L].
    """
    stages = len(model.stages)
    start = uniform_tokens(model.tokens, model.vocab_size, row_generators(0, batch))
    cond = None if cond is None else cond.expand(batch, -1)
    seconds: dict[int, float] = {}
    for scales in range(1, stages + 1) if stages else SCALES:
        own = model.about.sampling
        settings = replace(own, start=scales) if stages else replace(own, scales=scales)
        began = time.perf_counter()
        for event in model.stream(batch, cond, start, settings=settings, seed=0):
            tokens = event.tokens
        model.first_stage.decode(tokens)
        seconds[scales] = time.perf_counter() - began
    return {scales: batch / taken for scales, taken in seconds.items()}


def _task(subject: Subject, share: float, batch: int) -> _Task:
    """A band of masked tokens in the middle, as a mask would be; the same picture for every variant."""
    vocab_size, tokens = subject.step.vocab_size, subject.tokens
    generators = [torch.Generator().manual_seed(seed) for seed in range(batch)]
    c = torch.randint(vocab_size, (1, tokens), generator=generators[0]).expand(batch, -1)
    keep = torch.ones(batch, tokens, dtype=torch.bool)
    first = round(tokens * (1 - share) / 2)
    keep[:, first : first + round(tokens * share)] = False
    both = (subject.condition.cond, subject.condition.null)
    condition = Condition(*(part if part is None else part.expand(batch, -1) for part in both))
    noise = gumbel_noise((tokens, vocab_size), generators)
    return _Task(subject.step, c, keep, condition, subject.settings, noise)
