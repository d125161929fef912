"""A first look at a data set: what there is, what cannot be read, what is there twice. Every picture is opened once."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from PIL import Image, ImageOps

from imagebart.atomic_io import format_bytes, write_error, write_text
from imagebart.conditioning.tokenizer import pieces
from imagebart.config import Count, Index, from_dict
from imagebart.errors import InputError
from imagebart.imaging.files import flatten, load_image
from imagebart.models.vqgan import FirstStage, FirstStageConfig
from imagebart.training.config import AdversarialLoss, FirstStageLoss, LoopConfig, StageShape
from imagebart.training.data import MAX_VIEWS, PIXELS, Example, ImageSource, StoreIndex, stored_side, write_index
from imagebart.training.loop import Batch, Task, optimizers_for, precision

LEAST = 16  # pictures that a model can be trained of at all
NAMED = 5  # pictures that cannot be read, and so on, that are named; all are in the run's folder
SHOWN = 12  # words, or classes
SHARE, LEAST_HELD, MOST = 0.05, 4, 500  # pictures that are held back to measure with


@dataclass
class DatasetReport:
    """What was found."""

    kind: str  # what is said of pictures: "text", "class" or "none"
    sizes: list[tuple[int, int]] = field(default_factory=list)  # width and height of those that are used
    left_out: dict[str, str] = field(default_factory=dict)  # names, and why
    twice: dict[str, str] = field(default_factory=dict)  # names, and what they are the same as
    words: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)
    held: int = 0

    @property
    def count(self) -> int:
        return len(self.sizes)

    def lines(self) -> Iterator[str]:
        """The look in words."""
        short = sorted(min(size) for size in self.sizes)
        held = f", {self.held} of them held back to measure with" if self.held else ""
        yield f"{self.count:,} pictures{held}"
        if short:
            middle = statistics.median(short)
            yield f"short sides of {short[0]:,} to {short[-1]:,} pixels, {middle:,.0f} in the middle"
        yield from self._named("left out", self.left_out, " ")
        yield from self._named("there twice, used once", self.twice, ": the same as ")
        if self.kind == "text":
            silent = self.texts.get("", 0)
            without = f"; {silent:,} pictures without a caption" if silent else ""
            yield f"captions of {len(self.words):,} different words{without}"
            yield "most frequent: " + _counted(self.words)
        elif self.kind == "class":
            yield f"{len(self.texts):,} classes: " + _counted(self.texts)
        else:
            yield "neither captions nor classes: pictures are completed and redrawn without words"

    def _named(self, what: str, found: dict[str, str], joint: str) -> Iterator[str]:
        if found:
            yield f"{len(found):,} {what}:"
            for name, reason in list(found.items())[:NAMED]:
                yield f"  {name}{joint}{reason}"
            if len(found) > NAMED:
                yield f"  and {len(found) - NAMED:,} more"


def _counted(found: Counter[str]) -> str:
    return ", ".join(f"{text} ({count:,})" for text, count in found.most_common(SHOWN))


def inspect_dataset(
    source: ImageSource,
    resolution: int,
    folder: Path | None = None,
    opened: Callable[[int], object] = lambda count: None,
) -> DatasetReport:
    """Opens every picture. With a folder it keeps them there, ready to train on (see `store`).

    opened: told of each picture. Raises InputError where too few pictures are left, OSError where the disk is full.
    """
    found = DatasetReport(source.kind)
    kept: list[Example] = []
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with (folder / PIXELS).open("wb") if folder is not None else nullcontext() as file:
        for row, square, size in _usable(source, found, stored_side(resolution), opened):
            kept.append(row)
            found.sizes.append(size)
            found.texts[row.text] += 1
            if file is not None and folder is not None:
                try:
                    file.write(square.tobytes())
                except OSError as error:
                    raise write_error(error, folder / PIXELS, len(square.tobytes()) * (len(kept) + 1)) from error
    if found.count < LEAST:
        raise InputError(_too_few(found))
    for text, times in found.texts.items() if found.kind == "text" else ():
        for piece in pieces(text):
            found.words[piece.word] += times * bool(piece.word)
    found.words += Counter()  # without the empty word
    held = split_held_out(kept)
    found.held = sum(held)
    if folder is not None:
        credits = tuple(row.credit for row in kept)
        names, texts = tuple(row.name for row in kept), tuple(row.text for row in kept)
        write_index(folder, StoreIndex(resolution, found.kind, names, texts, tuple(held), credits))
    return found


def split_held_out(rows: list[Example]) -> list[bool]:
    """Which pictures are never trained on: those of a part called test, else one in twenty, by their names."""
    if any(row.held for row in rows) and not all(row.held for row in rows):
        return [row.held for row in rows]
    count = min(max(LEAST_HELD, round(SHARE * len(rows))), MOST)
    order = sorted(range(len(rows)), key=lambda i: blake2b(rows[i].name.encode()).digest())
    chosen = set(order[:count])
    return [i in chosen for i in range(len(rows))]


def _usable(
    rows: Iterable[Example], found: DatasetReport, side: int, opened: Callable[[int], object]
) -> Iterator[tuple[Example, Image.Image, tuple[int, int]]]:
    """The pictures that can be used, each once: the square in their middle, and their size."""
    seen: dict[bytes, str] = {}
    for row in rows:
        opened(1)
        if isinstance(row.source, Path) and not row.source.exists():
            found.left_out[row.name] = "is named by the captions, but there is no such file."
            continue
        try:
            image = flatten(load_image(row.source, "picture"))
        except InputError as error:
            found.left_out[row.name] = str(error)
            continue
        except OSError as error:
            found.left_out[row.name] = f"cannot be opened ({error.strerror})"
            continue
        square = ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)
        digest = blake2b(square.tobytes(), digest_size=16).digest()
        if digest in seen:
            found.twice[row.name] = seen[digest]
            continue
        seen[digest] = row.name
        yield row, square, image.size


def _too_few(found: DatasetReport) -> str:
    said = f"There are {found.count} pictures that can be used; at least {LEAST} are needed, better some hundreds."
    if found.left_out:
        name, reason = next(iter(found.left_out.items()))
        said += f" {len(found.left_out)} were left out, such as {name}: {reason}"
    return said


# What a training of someone's own pictures will do: sizes, hours, disk; planned from the pictures and this machine.


PLAN = "plan.json"
RESOLUTIONS = (32, 64, 128, 256)
MOST_HOURS = 10_000.0
LEAST_STEPS = 20  # of each part: with fewer, nothing is learnt at all
TIMED = 2  # steps that are timed
BUSY = 0.75  # load a core
SAVE, LOG, SHOW = 120.0, 20.0, 12  # seconds between checkpoints, and records; grids a part
TOKENS = 64_000_000  # bytes of the token file at most


@dataclass(frozen=True)
class Steps:
    """How many each part takes: the same on every machine."""

    denoiser: Count
    first_stage: Index = 0  # 0: as many as its share of the hours allows
    decoder: Index = 0  # of the first stage, alone


@dataclass(frozen=True)
class ModelRun:
    """`python -m imagebart train model`: what is asked for. What is None is planned."""

    data: str  # a folder of pictures, or the name of a data set on the Hub
    hours: float
    resolution: int | None = None  # pixels a side
    first_stage: str | None = None  # folder of a trained first stage, or of a model, to take over
    begin_from: str | None = None  # folder of a model to take all of over, and train its denoiser on
    knows: str = ""  # what the pictures show, in plain words
    licence: str = ""  # of the pictures
    credit: str = ""  # Markdown for the card: who made the pictures
    batch_size: int = 16
    share: float = 0.4  # of the hours, for the first stage
    steps: Steps | None = None  # None: as many as the hours allow
    model: FirstStageConfig | None = None
    loss: FirstStageLoss | None = None
    shape: StageShape | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.hours <= MOST_HOURS:
            raise InputError(f"The hours are {self.hours:g}; they must be over 0, such as 8 for a night.")
        if self.resolution is not None and self.resolution not in RESOLUTIONS:
            known = ", ".join(map(str, RESOLUTIONS))
            raise InputError(f"The resolution is {self.resolution}; it must be one of {known}.")
        if not 1 <= self.batch_size <= 4096:
            raise InputError(f"The batch size is {self.batch_size}; it must be from 1 to 4096.")
        if not 0 < self.share < 1:
            raise InputError(f"The first stage's share is {self.share:g}; it must be over 0 and under 1.")
        if self.begin_from is not None and (self.first_stage is not None or self.shape is not None):
            other = "shape" if self.first_stage is None else "first stage"
            raise InputError(f"{self.begin_from} is begun from, with its own {other}; leave out the one or the other.")

    @property
    def given(self) -> str | None:
        """Where the first stage is taken over from; None where it is trained."""
        return self.first_stage or self.begin_from


@dataclass(frozen=True)
class Plan:
    """What will be done."""

    run: ModelRun
    model: FirstStageConfig
    loss: FirstStageLoss
    shape: StageShape
    views: int  # of each picture, in the token file
    steps: int  # of the first stage; 0 where it is taken over
    seconds: float  # that one of them took here; 0 as well
    disk: int  # bytes that the run and the model will take, about

    def first_loop(self) -> LoopConfig:
        return loop(self.run, self.steps, self.seconds)

    @property
    def added(self) -> float:
        """Hours that the first stage's share has grown by since it was planned; 0 where it is taken over."""
        if self.run.steps is not None:
            return self.run.steps.decoder * self.seconds / 3600
        hours = self.run.share * self.run.hours - self.steps * self.seconds / 3600
        return hours if self.steps and 3600 * hours >= LEAST_STEPS * self.seconds else 0.0

    def lines(self) -> Iterator[str]:
        """The plan in words."""
        side = self.model.side
        yield (
            f"{self.model.resolution} × {self.model.resolution} pixels, {side} × {side} tokens of "
            f"{self.model.vocab_size:,} codes; {self.views} views of each picture"
        )
        left = self.run.hours * (1.0 if self.run.given else 1 - self.run.share)
        if self.run.given:
            yield f"first stage: taken over from {self.run.given}"
        else:
            count = sum(p.numel() for p in FirstStage(self.model).parameters())
            size = f"{count / 1e6:.1f} M numbers, {self.steps:,} steps of {self.run.batch_size}"
            yield f"first stage: {size}, {_hours(self.steps * self.seconds / 3600)}"
        layers = f"{self.shape.depth} + {self.shape.encoder_depth} layers of {self.shape.width}"
        length = f"{self.run.steps.denoiser:,} steps" if self.run.steps else _hours(left)
        yield f"denoiser: {layers}, {length}" + (" more" if self.run.begin_from else "")
        yield f"disk: {format_bytes(self.disk)}"
        if load := load_of_others():
            cores = os.cpu_count()
            yield f"this machine is busy (load {load:.1f} on {cores} cores): hours are meant without what else it does"


def loop(run: ModelRun, steps: int, seconds: float) -> LoopConfig:
    """How a part is trained, given how long a step takes."""
    every = max(LEAST_STEPS // 2, steps // SHOW)
    return LoopConfig(
        steps=steps,
        batch_size=run.batch_size,
        optimizer="muon",
        lr=1e-3,
        weight_decay=0.01,
        warmup=min(100, max(1, steps // 20)),
        ema=min(0.998, 1 - 1 / max(steps // 20, 2)),
        seed=run.seed,
        log_every=min(every, max(1, round(LOG / max(seconds, 1e-3)))),
        save_every=min(every, max(1, round(SAVE / max(seconds, 1e-3)))),
        sample_every=every,
    )


def make_plan(
    run: ModelRun,
    found: DatasetReport,
    first_stage: FirstStageConfig | None,
    folder: Path,
    shape: StageShape | None = None,
) -> Plan:
    """The plan for what was found and what is taken over. Raises InputError where the disk has no room for it."""
    model = first_stage or run.model or first_stage_config(resolution_for(run, found.sizes))
    shape = shape or run.shape or _shape(model)
    views = max(2, min(MAX_VIEWS, TOKENS // (4 * model.tokens * found.count)))
    weights = 4 * 4 * 2 * (_first_stage_size(model) + 20 * shape.width**2 * (shape.depth + shape.encoder_depth))
    disk = found.count * (3 * stored_side(model.resolution) ** 2 + 4 * model.tokens * views) + weights
    _check_room(folder, disk)
    plan = Plan(run, model, run.loss or FirstStageLoss(), shape, views, 0, 0.0, disk)
    if first_stage is not None:
        return plan
    seconds = _first_stage_seconds(plan)
    steps = run.steps.first_stage if run.steps else 0
    steps = steps or max(LEAST_STEPS, int(3600 * run.hours * run.share / seconds))
    loss = run.loss or FirstStageLoss(
        face=1.0, adversarial=AdversarialLoss(begin=steps // 3, crop=max(32, min(128, model.resolution // 2 * 2)))
    )
    return replace(plan, loss=loss, steps=steps, seconds=seconds)


def resolution_for(run: ModelRun, sizes: list[tuple[int, int]]) -> int:
    """Pixels a side: as asked for, else what most pictures have and this machine can train in the hours."""
    if run.model is not None:
        return run.model.resolution
    if run.resolution is not None:
        return run.resolution
    short = statistics.median(min(size) for size in sizes)
    most = 256 if torch.cuda.is_available() else 128
    return max([r for r in RESOLUTIONS if r <= min(short, most)], default=RESOLUTIONS[0])


def first_stage_config(resolution: int) -> FirstStageConfig:
    """A VQGAN for so many pixels, whose tokens see their own cells alone: what is kept says nothing of the rest."""
    fold, multipliers = {32: (2, (1, 1)), 64: (4, (1, 1)), 128: (4, (1, 2)), 256: (4, (1, 2, 2))}[resolution]
    channels = 64 if resolution < 128 else 96
    return FirstStageConfig(
        resolution=resolution,
        channels=channels,
        multipliers=multipliers,
        res_blocks=1 if resolution < 128 else 2,
        attention_resolutions=(),
        latent_channels=192 if resolution >= 128 else 64,
        code_dim=16,
        codebook_size=1024 if resolution >= 128 else 256,
        pixel_unshuffle=fold,
        unit_codes=True,
        encoder="patch",
    )


def _shape(model: FirstStageConfig) -> StageShape:
    if model.resolution < 128:
        return StageShape(width=128, depth=3, heads=2, encoder_depth=2, query_tokens=8)
    return StageShape(width=512, depth=8, heads=8) if torch.cuda.is_available() else StageShape()


def _first_stage_size(model: FirstStageConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in FirstStage(model).parameters())


def _first_stage_seconds(plan: Plan) -> float:
    """Seconds a step with the discriminator at work."""
    from imagebart.training.vqgan import FirstStageTask

    size = plan.model.resolution
    loss = replace(plan.loss, adversarial=AdversarialLoss(begin=0, crop=max(32, min(128, size))))
    images = [{"image": torch.randint(256, (3, size, size), dtype=torch.uint8)} for _ in range(plan.run.batch_size)]
    model = FirstStage(plan.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    task = FirstStageTask(model, images, torch.ones(size, size), loss)  # type: ignore[arg-type]
    batch = {"image": torch.stack([item["image"] for item in images])}
    return seconds_per_step(task, batch, loop(plan.run, LEAST_STEPS, 1.0))


class Alone(Accelerator):
    """One process by itself, whether there are others or not: they need not do the same just now."""

    def reduce(self, tensor: Any, reduction: str = "sum", scale: float = 1.0) -> Any:
        return tensor


def seconds_per_step(task: Task, batch: Batch, config: LoopConfig) -> float:
    """How long a step takes on this machine when it does nothing else.

    The task's model is changed by it: give it one to throw away.
    """
    accelerator = Alone(mixed_precision=precision(config.mixed_precision))
    optimizers = optimizers_for(task.model, config)
    model = task.model.to(accelerator.device)
    busy = load_of_others() > 0 and accelerator.device.type == "cpu"
    batch = {k: v.to(accelerator.device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    times = []
    with _own_time() if busy else nullcontext(time.perf_counter) as clock:
        for _ in range(1 + TIMED):
            began = clock()
            with accelerator.autocast():
                loss = task.loss(model, batch, accelerator)["loss"]
            accelerator.backward(loss)
            with accelerator.autocast():
                for optimizer in optimizers:
                    optimizer.step()
            model.zero_grad(set_to_none=True)
            task.after_step(accelerator.unwrap_model(model), accelerator)
            loss.item()  # waits for a GPU
            times.append(clock() - began)
    return min(times[1:])


@contextmanager
def _own_time() -> Iterator[Callable[[], float]]:
    """Seconds that this process has worked, as if its threads shared the work: one does it, for threads that wait for
    each other on a busy machine seem to work all the while."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield lambda: time.process_time() / threads
    finally:
        torch.set_num_threads(threads)


def load_of_others() -> float:
    """The machine's load where that is so high that clocks say little of a step; else 0."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0  # Windows has none
    return load if load > BUSY * (os.cpu_count() or 1) else 0.0


def _check_room(folder: Path, disk: int) -> None:
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(place).free
    if disk > free:
        needed, available = format_bytes(disk), format_bytes(free)
        raise InputError(f"The training takes {needed} in {folder}, and {available} are free there.")


def write_plan(plan: Plan, folder: Path) -> None:
    write_text(folder / PLAN, json.dumps(asdict(plan), indent=1))


def read_plan(folder: Path) -> Plan | None:
    """The plan that a run goes by; None where there is none yet."""
    path = folder / PLAN
    return from_dict(Plan, json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def _hours(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.1f} hours"
    return f"{60 * hours:.0f} minutes" if hours >= 1 / 30 else f"{3600 * hours:.0f} seconds"
