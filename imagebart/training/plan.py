"""The plan of `train model`: sizes, steps and disk, from the images, the hours and this machine's speed."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import default_collate

from imagebart.atomic_io import format_bytes
from imagebart.errors import InputError
from imagebart.models.vqgan import FirstStage, FirstStageConfig
from imagebart.settings import Settings
from imagebart.training.config import AdversarialLoss, FirstStageLoss, LoopConfig, ModelRun, Resolution, StageShape
from imagebart.training.data import MAX_VIEWS, ImageSource, stored_side
from imagebart.training.loop import Task, optimizers_for, precision, training_step
from imagebart.training.state import read_json
from imagebart.training.vqgan import FirstStageTask

PLAN = "plan.json"
MIN_STEPS = 20  # of each part
TIMED_STEPS, TIMED_IMAGES = 2, 32  # images of a step, at most: the time of a larger one is in proportion
BUSY_LOAD = 0.75  # of each core
SECONDS_PER_CHECKPOINT, SECONDS_PER_RECORD, GRIDS = 120.0, 20.0, 12  # grids: in each part
MAX_TOKEN_BYTES = 64_000_000  # of the token file


class Plan(Settings):
    run: ModelRun
    model: FirstStageConfig
    loss: FirstStageLoss
    shape: StageShape
    views: int  # of each image, in the token file
    steps: int  # of the first stage; 0 where a trained one is used
    seconds: float  # that one of them took here; 0 as well
    disk: int  # bytes that the run and the model will take, about

    @property
    def decoder_hours(self) -> float:
        """Hours by which the first stage's share has grown since it was planned; 0 where a trained one is used."""
        if self.run.steps is not None:
            return self.run.steps.decoder * self.seconds / 3600
        hours = self.run.first_stage_share * self.run.hours - self.steps * self.seconds / 3600
        return hours if self.steps and 3600 * hours >= MIN_STEPS * self.seconds else 0.0

    def lines(self) -> Iterator[str]:
        """The plan as text."""
        run, side = self.run, self.model.side
        yield (
            f"{self.model.resolution} × {self.model.resolution} pixels, {side} × {side} tokens of "
            f"{self.model.vocab_size:,} codes; {self.views} views of each image"
        )
        if run.trained_first_stage:
            yield f"first stage: initialised from {run.trained_first_stage}"
        else:
            size = f"{_parameters(self.model) / 1e6:.1f} M parameters, {self.steps:,} steps of {run.batch_size}"
            yield f"first stage: {size}, {_duration(self.steps * self.seconds / 3600)}"
        layers = f"{self.shape.depth} + {self.shape.encoder_depth} layers of {self.shape.width}"
        hours = run.hours * (1.0 if run.trained_first_stage else 1 - run.first_stage_share)
        length = f"{run.steps.denoiser:,} steps" if run.steps else _duration(hours)
        yield f"denoiser: {layers}, {length}" + (" more" if run.init_from else "")
        yield f"disk: {format_bytes(self.disk)}"
        if load := load_of_others():
            cores = os.cpu_count()
            yield f"this machine is busy (load {load:.1f} on {cores} cores): the hours are those of an idle one"


def make_plan(
    run: ModelRun,
    count: int,
    resolution: int,
    folder: Path,
    first_stage: FirstStageConfig | None = None,
    shape: StageShape | None = None,
) -> Plan:
    """The plan for so many images of a resolution; first_stage, shape: those of trained networks, if there are any.

    Times steps, on all processes together. Raises InputError where the disk has no room for the run.
    """
    model = first_stage or run.model or first_stage_config(resolution)
    shape = shape or run.shape or denoiser_shape(model.resolution)
    views = max(2, min(MAX_VIEWS, MAX_TOKEN_BYTES // (4 * model.tokens * count)))
    weights = 4 * 4 * 3 * (_parameters(model) + 20 * shape.width**2 * (shape.depth + shape.encoder_depth))
    disk = count * (3 * stored_side(model.resolution) ** 2 + 4 * model.tokens * views) + weights
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(place).free
    if disk > free:
        needed, available = format_bytes(disk), format_bytes(free)
        raise InputError(f"The training takes {needed} in {folder}, and {available} are free there.")
    loss = run.loss or FirstStageLoss()
    if first_stage is not None:
        return Plan(run=run, model=model, loss=loss, shape=shape, views=views, steps=0, seconds=0.0, disk=disk)
    size = model.resolution
    timed_loss = loss.replace(adversarial=AdversarialLoss(start_step=0, crop=max(32, min(128, size))))
    images = [
        {"image": torch.randint(256, (3, size, size), dtype=torch.uint8)}
        for _ in range(min(run.batch_size, TIMED_IMAGES))
    ]
    network = FirstStage(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    task = FirstStageTask(network, images, torch.ones(size, size), timed_loss)  # type: ignore[arg-type]
    seconds = seconds_per_step(task, loop_config(run, MIN_STEPS, 1.0))
    steps = run.steps.first_stage if run.steps else 0
    steps = steps or max(MIN_STEPS, int(3600 * run.hours * run.first_stage_share / seconds))
    adversarial = AdversarialLoss(start_step=steps // 3, crop=max(32, min(128, size // 2 * 2)))
    loss = run.loss or FirstStageLoss(face=1.0, adversarial=adversarial)
    return Plan(run=run, model=model, loss=loss, shape=shape, views=views, steps=steps, seconds=seconds, disk=disk)


def resolution_for(run: ModelRun, first_stage: FirstStageConfig | None, source: ImageSource) -> int:
    """Pixels a side: the first stage's, or as asked for, or the most that half of the images have, up to a limit."""
    model = first_stage or run.model
    if model is not None:
        return model.resolution
    if run.resolution is not None:
        return run.resolution
    short = statistics.median(min(size) for size in source.sizes())
    limit = 256 if torch.cuda.is_available() else 128
    return max((r for r in get_args(Resolution) if r <= min(short, limit)), default=min(get_args(Resolution)))


def first_stage_config(resolution: int) -> FirstStageConfig:
    """A VQGAN whose tokens depend on their own patch alone, so that those outside a mask do not depend on the rest."""
    unshuffle, multipliers = {32: (2, (1, 1)), 64: (4, (1, 1)), 128: (4, (1, 2)), 256: (4, (1, 2, 2))}[resolution]
    small = resolution < 128
    return FirstStageConfig(
        resolution=resolution,
        channels=64 if small else 96,
        multipliers=multipliers,
        res_blocks=1 if small else 2,
        attention_resolutions=(),
        latent_channels=64 if small else 192,
        code_dim=16,
        codebook_size=256 if small else 1024,
        pixel_unshuffle=unshuffle,
        unit_codes=True,
        encoder="patch",
    )


def denoiser_shape(resolution: int) -> StageShape:
    """The shape of a denoiser that this machine can train in a night or so."""
    if resolution < 128:
        return StageShape(width=128, depth=3, heads=2, encoder_depth=2, query_tokens=8)
    return StageShape(width=512, depth=8, heads=8) if torch.cuda.is_available() else StageShape()


def _parameters(model: FirstStageConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in FirstStage(model).parameters())


def loop_config(run: ModelRun, steps: int, seconds: float) -> LoopConfig:
    """Settings of a part's training, of so many steps that take so many seconds each."""
    every = max(MIN_STEPS // 2, steps // GRIDS)
    return LoopConfig(
        steps=steps,
        batch_size=run.batch_size,
        optimizer="muon",
        lr=1e-3,
        weight_decay=0.01,
        warmup=min(100, max(1, steps // 20)),
        ema=min(0.998, 1 - 1 / max(steps // 20, 2)),
        seed=run.seed,
        log_every=min(every, max(1, round(SECONDS_PER_RECORD / max(seconds, 1e-3)))),
        save_every=min(every, max(1, round(SECONDS_PER_CHECKPOINT / max(seconds, 1e-3)))),
        sample_every=every,
    )


def seconds_per_step(task: Task, config: LoopConfig) -> float:
    """How long a step takes on this machine when it is idle. The task's model is changed.

    On a busy machine the CPU time of one thread is counted, over the number of threads: with several, those that wait
    for each other count as busy.
    """
    accelerator = Accelerator(mixed_precision=precision(config.mixed_precision))
    model, optimizers = task.model.to(accelerator.device), optimizers_for(task.model, config)
    length = len(task.dataset)  # type: ignore[arg-type]
    count = min(config.batch_size, TIMED_IMAGES)
    items = default_collate([task.dataset[i % length] for i in range(count)])
    batch = {k: v.to(accelerator.device) if isinstance(v, Tensor) else v for k, v in items.items()}
    busy, threads = load_of_others() > 0 and accelerator.device.type == "cpu", torch.get_num_threads()
    times = []
    try:
        if busy:
            torch.set_num_threads(1)
        for _ in range(1 + TIMED_STEPS):  # the first one warms up
            start = time.process_time() / threads if busy else time.perf_counter()
            scalars, _ = training_step(task, model, batch, optimizers, config.clip, accelerator)
            scalars["loss"].item()  # waits for a GPU
            times.append((time.process_time() / threads if busy else time.perf_counter()) - start)
    finally:
        torch.set_num_threads(threads)
    return min(times[1:]) * config.batch_size / count


def load_of_others() -> float:
    """The machine's load where it is too high to time a step by the clock; else 0."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0  # Windows has none
    return load if load > BUSY_LOAD * (os.cpu_count() or 1) else 0.0


def read_plan(folder: Path) -> Plan | None:
    """The plan of a run; None where there is none yet."""
    path = folder / PLAN
    return read_json(Plan, path, "delete it to plan again") if path.exists() else None


def _duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.1f} hours"
    return f"{60 * hours:.0f} minutes" if hours >= 1 / 30 else f"{3600 * hours:.0f} seconds"
