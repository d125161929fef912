"""The training loop that all models share: steps, averaged weights, log, checkpoints, sample grids, validation.

A run is resumed from its last checkpoint, and ends with the weights of an uninterrupted one: the random numbers of a
step depend on the seed, the step and the process only.
"""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import set_seed
from PIL import Image
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from imagebart.atomic_io import write_error, write_text
from imagebart.imaging.figures import chart
from imagebart.imaging.files import save_image
from imagebart.training.config import LoopConfig
from imagebart.training.progress import tracked
from imagebart.training.state import OptimizerState, Stateful, load_state, save_state

LOG = "log.jsonl"
SEED_STRIDE = 10_000_000  # items of endless data between the places where two seeds begin
ENDLESS = 10**8  # a longer data set is read in order
TABLE, CHART = "figures.csv", "figures.png"  # of metrics
MIN_RECORDS = 5  # before a plateau is reported
MIN_GAIN = 0.002  # share by which the last third of the records has to be better than those before
TABLE_ROWS = 6  # of the losses
NOT_LOSSES = {"step", "grad", "lr", "images_s", "hours"}

Batch = dict[str, Any]
Metrics = dict[str, float]


class Task(Protocol):
    """What is trained: a model, its data and its loss."""

    model: nn.Module
    dataset: Dataset[Any]

    def loss(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        """Scalars to log; the one named `loss` is minimised."""

    def after_step(self, model: nn.Module, accelerator: Accelerator) -> None:
        """Updates without a gradient, such as a codebook's moving averages. By default none."""
        return

    def state(self) -> list[Stateful]:
        """What a checkpoint holds besides the model. By default nothing."""
        return []

    def sample(self, model: nn.Module) -> Image.Image:
        """A grid to look at."""


@dataclass(frozen=True)
class StepBatchSampler:
    """The data set's indices of each step from `start` on: a function of the seed and the step only.

    Each of several processes gets its part of each step; together they get what one with their whole batch would.
    Endless data are read in order, from an offset of each seed's own, so that a run that is initialised from another
    sees other data; a finite set is shuffled in each epoch.
    """

    length: int
    batch_size: int
    start: int
    steps: int
    seed: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError("the dataset is empty, expected at least one image")

    def __len__(self) -> int:
        return max(self.steps - self.start, 0)

    def __iter__(self) -> Iterator[list[int]]:
        epoch, order = -1, torch.empty(0)
        for step in range(self.start, self.steps):
            batch = []
            first = (step * self.world_size + self.rank) * self.batch_size
            for n in range(first, first + self.batch_size):
                if self.length > ENDLESS:
                    batch.append((n + self.seed * SEED_STRIDE) % self.length)
                    continue
                if n // self.length != epoch:
                    epoch = n // self.length
                    generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
                    order = torch.randperm(self.length, generator=generator)
                batch.append(int(order[n % self.length]))
            yield batch


def train(
    task: Task, config: LoopConfig, folder: Path, validate: Callable[[nn.Module, int], object] | None = None
) -> nn.Module:
    """Trains to `config.steps`, resuming from the checkpoint in `folder` if there is one.

    Writes `log.jsonl`, `samples/*.png` and `state/` there. validate: called with the averaged model and the step
    whenever a grid is written. Returns the model with averaged weights.
    """
    accelerator = Accelerator(mixed_precision=precision(config.mixed_precision), step_scheduler_with_optimizer=False)
    set_seed(config.seed)
    folder.mkdir(parents=True, exist_ok=True)
    ema = AveragedModel(task.model, multi_avg_fn=get_ema_multi_avg_fn(config.ema)).to(accelerator.device)
    optimizers = optimizers_for(task.model, config)
    model, *optimizers = accelerator.prepare(task.model, *optimizers)
    parts: dict[str, Stateful] = {"model": accelerator.unwrap_model(model), "ema": ema}
    parts |= {f"optimizer{i}": OptimizerState(optimizer) for i, optimizer in enumerate(optimizers)}
    parts |= {f"task{i}": part for i, part in enumerate(task.state())}
    start, rank, world_size = load_state(folder, parts), accelerator.process_index, accelerator.num_processes
    accelerator.wait_for_everyone()
    length = len(task.dataset)  # type: ignore[arg-type]
    batches = StepBatchSampler(length, config.batch_size, start, config.steps, config.seed, rank, world_size)
    # Not by `accelerator.prepare`, which would share out whole batches, each of them a step, among the processes.
    loader = prepare_data_loader(
        DataLoader(task.dataset, batch_sampler=batches, num_workers=config.workers),
        accelerator.device,
        num_processes=1,
        process_index=0,
        put_on_device=True,
    )
    shown = tracked(loader, "steps", config.steps, start, shown=accelerator.is_main_process)
    hours, since = hours_so_far(folder), time.perf_counter()
    for step, batch in enumerate(shown, start=start + 1):
        # A resumed run draws the same noise, and each process noise of its own.
        torch.manual_seed((config.seed + rank * SEED_STRIDE) * 1_000_003 + step)
        model.train()
        lr = config.lr * learning_rate(step - 1, config)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = lr
        scalars, norm = training_step(task, model, batch, optimizers, config.clip, accelerator)
        bare = accelerator.unwrap_model(model)
        ema.update_parameters(bare)
        if step % config.log_every == 0 and accelerator.is_main_process:
            now = time.perf_counter()
            rate = config.log_every * config.batch_size * world_size / (now - since)
            hours, since = hours + (now - since) / 3600, now
            record = {"step": step, **{k: round(v.item(), 5) for k, v in scalars.items()}}
            record |= {"grad": round(float(norm), 4), "lr": lr, "images_s": round(rate, 2)}
            write_record(folder, record | {"hours": round(hours, 4)})
        if step % config.save_every == 0 or step == config.steps:
            if accelerator.is_main_process:
                save_state(folder, step, parts)
            accelerator.wait_for_everyone()
        if (step % config.sample_every == 0 or step == config.steps) and accelerator.is_main_process:
            averaged = _averaged_model(ema, bare)
            (folder / "samples").mkdir(exist_ok=True)
            save_image(task.sample(averaged), folder / "samples" / f"{step:07d}.png")
            if validate is not None:
                validate(averaged, step)
    return _averaged_model(ema, accelerator.unwrap_model(model))


def training_step(
    task: Task,
    model: nn.Module,
    batch: Batch,
    optimizers: Sequence[torch.optim.Optimizer],
    clip: float,
    accelerator: Accelerator,
) -> tuple[dict[str, Tensor], Any]:
    """One update of a model. Returns the task's scalars and the gradient's norm before it was clipped."""
    with accelerator.autocast():
        scalars = task.loss(model, batch, accelerator)
    accelerator.backward(scalars["loss"])
    norm = accelerator.clip_grad_norm_(model.parameters(), clip)
    with accelerator.autocast():  # Muon multiplies matrices
        for optimizer in optimizers:
            optimizer.step()
    model.zero_grad(set_to_none=True)
    task.after_step(accelerator.unwrap_model(model), accelerator)
    return scalars, norm


def learning_rate(step: int, config: LoopConfig) -> float:
    """Share of the peak rate at a step: linear warm-up, then a cosine down to `final_lr`."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    progress = min((step - config.warmup) / max(config.steps - config.warmup, 1), 1.0)
    return config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def precision(wanted: str) -> str:
    """What "auto" means on this machine: bf16 where it has instructions for it, else fp32 ("no")."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # emulated, it is very slow
    return "bf16" if fast else "no"


def _averaged_model(ema: AveragedModel, model: nn.Module) -> nn.Module:
    """The averaged weights with the model's own buffers, for use."""
    for average, current in zip(ema.module.buffers(), model.buffers(), strict=True):
        average.copy_(current)
    return ema.module.eval()


# The log of a run, and metrics of held-out data.


def write_record(folder: Path, record: dict[str, float]) -> None:
    """Appends a record to a run's log, on its own line even where a killed run left half a line."""
    path, line = folder / LOG, json.dumps(record) + "\n"
    try:
        with path.open("a+b") as log:
            log.seek(max(log.tell() - 1, 0))
            half = log.read(1) not in (b"", b"\n")
            log.write(("\n" * half + line).encode())
    except OSError as error:
        raise write_error(error, path, len(line)) from error


def read_log(folder: Path) -> list[dict[str, float]]:
    """The records of a run's log, each of a step; lines that are damaged are left out."""
    path, records = folder / LOG, []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        with suppress(ValueError, RecursionError):
            record = json.loads(line)
            if isinstance(record, dict) and all(isinstance(value, int | float) for value in record.values()):
                records += [record] if {"step", "hours"} <= record.keys() else []
    return records


def hours_so_far(folder: Path) -> float:
    """Hours that a run took up to its last record, over all its resumptions."""
    records = read_log(folder)
    return records[-1]["hours"] if records else 0.0


@dataclass(frozen=True)
class Validation:
    """Measures a model whenever the loop calls it. The first metric is the one that counts; smaller is better."""

    folder: Path
    measure: Callable[[nn.Module], Metrics]
    say: Callable[[str], None] = print
    settled_after: int = 0  # the step from which the metric means the same

    def __call__(self, model: nn.Module, step: int) -> None:
        metrics = self.measure(model)
        rows = [row for row in read_metrics(self.folder) if row["step"] < step]
        rows.append({"step": float(step), "hours": round(hours_so_far(self.folder), 4), **metrics})
        lines = [list(rows[-1]), *(row.values() for row in rows)]
        write_text(self.folder / TABLE, "".join(",".join(map(str, line)) + "\n" for line in lines))
        name = next(iter(metrics))
        save_image(chart({"": [(r["hours"], r[name]) for r in rows]}, "hours", name, bottom=None), self.folder / CHART)
        self.say(f"step {step:,}: " + ", ".join(f"{key} {value:.4g}" for key, value in metrics.items()))
        if has_plateaued([row[name] for row in rows if row["step"] > self.settled_after]):
            self.say(f"{name} has not improved for a third of the run: more hours would hardly help.")


def has_plateaued(values: Sequence[float]) -> bool:
    """Whether the best of the last third is no better than the best before: smaller is better."""
    last = max(2, len(values) // 3)
    if len(values) < max(MIN_RECORDS, last + 1):
        return False
    before, after = min(values[:-last]), min(values[-last:])
    return after > before - MIN_GAIN * abs(before)


def read_metrics(folder: Path) -> list[Metrics]:
    """The metrics of a run so far, a row for each validation."""
    path, metrics = folder / TABLE, []
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for row in csv.DictReader(text.replace("\0", "").splitlines()):
        with suppress(ValueError, TypeError):  # a line that is damaged
            numbers = {name: float(value) for name, value in row.items()}
            if {"step", "hours"} < numbers.keys():
                metrics.append(numbers)
    return metrics


def loss_table(folder: Path) -> Iterator[str]:
    """Lines of a Markdown table: hours, steps, mean losses in each sixth of a run. Raises ValueError without a log."""
    records = read_log(folder)
    if not records:
        raise ValueError(f"{folder} has no log.jsonl with records; expected the folder of a run")
    names = [name for name in records[0] if name not in NOT_LOSSES]
    records = [record for record in records if record.keys() >= set(names)]
    rows = [["hours", "steps", *names], ["---:"] * (len(names) + 2)]
    for part in np.array_split(np.array(records, object), min(TABLE_ROWS, len(records))):
        means = [sum(record[name] for record in part) / len(part) for name in names]
        rows.append([f"{part[-1]['hours']:.2f}", f"{part[-1]['step']:.0f}", *(f"{mean:.3g}" for mean in means)])
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def optimizers_for(model: nn.Module, config: LoopConfig) -> list[torch.optim.Optimizer]:
    """AdamW, and with `config.optimizer` "muon" Muon for the matrices and convolutions of blocks.

    AdamW decays matrices only, no gains and biases.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    inner = [p for name, p in named if config.optimizer == "muon" and ".block" in name and p.ndim >= 2]
    taken = {id(p) for p in inner}
    others = [p for _, p in named if id(p) not in taken]
    groups = [
        {"params": [p for p in others if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)
    return [adamw, Muon(inner, config.lr, config.weight_decay)] if inner else [adamw]


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix is made orthogonal before each step (Jordan et al. 2024), as large as AdamW's (Liu et al.
    2025, eq. 4). A convolution is a matrix with a row for each output channel.

    PyTorch's own multiplies in bf16 only, which a CPU without instructions for it emulates dozens of times slower; this
    one multiplies as autocast has it.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        shapes = [tuple(p.shape) for group in self.param_groups for p in group["params"] if p.ndim < 2]
        if shapes:
            raise ValueError(f"Muon takes matrices and convolutions, not a parameter of shape {list(shapes[0])}")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "velocity" not in state:
                    state["velocity"] = torch.zeros_like(p)
                velocity = state["velocity"]
                velocity.mul_(group["momentum"]).add_(p.grad)
                nesterov = p.grad.add(velocity, alpha=group["momentum"])
                matrix = nesterov.flatten(1)
                update = orthogonal(matrix).view(nesterov.shape)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-0.2 * max(matrix.shape) ** 0.5 * group["lr"])


def orthogonal(matrix: Tensor) -> Tensor:
    """[m, n] -> about U V^T of its singular value decomposition U S V^T: all singular values between 0.7 and 1.2.

    Five steps of a quintic Newton-Schulz iteration, with Jordan's coefficients.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / wide.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if wide is matrix else x.T
