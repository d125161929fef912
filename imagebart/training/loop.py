"""The training loop that all models share: steps, averaged weights, log, state to resume from, sample grids, Muon.

A run lasts for `steps`, or until it has taken its `hours`, those before it was stopped included; the learning rate
follows the share that is done. A run of steps that is resumed ends with the weights of an unbroken one: the random
numbers of a step depend on the seed, the step and the process only.
"""

import io
import json
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, send_to_device, set_seed
from PIL import Image
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from imagebart.core.atomic_io import write_bytes
from imagebart.core.errors import InputError, reason_of
from imagebart.imaging.files import save_image
from imagebart.training.config import LoopConfig

LOG, STATE = "log.jsonl", "state.pt"
SEED_STRIDE = 10_000_000  # items of endless data between the places where two seeds begin
ENDLESS = 10**8  # a longer data set is read in order
GRIDS = 8  # of samples, in a run
SAVE_SECONDS = 120.0  # between two states

Batch = dict[str, Any]
Metrics = dict[str, float]


class Task:
    """What is trained: a model, its data and its loss."""

    model: nn.Module
    dataset: Dataset[Any]
    share = 0.0  # of the run that is done, 0 to 1; set by the loop before each step

    def loss(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        """Scalars to log; the one named `loss` is minimized."""
        raise NotImplementedError

    def after_step(self, model: nn.Module, accelerator: Accelerator) -> None:
        """Updates without a gradient, such as a codebook's moving averages."""

    def state(self) -> dict[str, Any]:
        """What a run is resumed from besides the model: modules, optimizers or others with a state_dict."""
        return {}

    def sample(self, model: nn.Module) -> Image.Image | None:
        """A grid to look at."""
        return None

    def validate(self, model: nn.Module) -> Metrics:
        """Metrics of held-out data, for the log."""
        return {}


def train(task: Task, config: LoopConfig, folder: Path) -> nn.Module:
    """Trains for `config.steps` or `config.hours`, resuming from the state in `folder` if there is one.

    Writes `log.jsonl`, `samples/*.png` and `state.pt` there. Returns the model with averaged weights.
    """
    accelerator = Accelerator(mixed_precision=precision(config.mixed_precision))
    rank, processes, is_main = accelerator.process_index, accelerator.num_processes, accelerator.is_main_process
    set_seed(config.seed)
    folder.mkdir(parents=True, exist_ok=True)
    step = 0

    def average(averaged: Any, current: Any, count: Any) -> None:
        decay = min(config.ema, step / (step + 9))  # the first steps, of an untrained model, are soon forgotten
        get_ema_multi_avg_fn(decay)(averaged, current, count)

    ema = AveragedModel(task.model, multi_avg_fn=average).to(accelerator.device)
    model, *optimizers = accelerator.prepare(task.model, *optimizers_for(task.model, config))
    bare = accelerator.unwrap_model(model)
    parts = {"model": bare, "ema": ema, **{f"optimizer {i}": o for i, o in enumerate(optimizers)}, **task.state()}
    step, hours_before = load_state(folder / STATE, parts)
    accelerator.wait_for_everyone()
    began = logged = saved = time.perf_counter()

    def hours() -> float:
        return hours_before + (time.perf_counter() - began) / 3600

    def share_done() -> float:
        if config.steps is not None:
            return step / config.steps
        assert config.hours is not None
        share = torch.tensor(min(hours() / config.hours, 1.0), device=accelerator.device if processes > 1 else "cpu")
        return float(broadcast(share))  # of the first process, so that all stop at the same step

    length = len(task.dataset)  # type: ignore[arg-type]
    batches = step_batches(length, config.batch_size, step, config.seed, rank, processes)
    loader = iter(DataLoader(task.dataset, batch_sampler=batches, num_workers=config.workers))
    bar = tqdm(total=config.steps, initial=step, unit="step", disable=not is_main)
    task.share = share_done()
    while task.share < 1:
        batch = send_to_device(next(loader), accelerator.device)
        # A resumed run draws the same noise, and each process noise of its own.
        torch.manual_seed((config.seed + rank * SEED_STRIDE) * 1_000_003 + step + 1)
        model.train()
        lr = config.lr * learning_rate(config, step, task.share)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = lr
        with accelerator.autocast():
            scalars = task.loss(model, batch, accelerator)
        accelerator.backward(scalars["loss"])
        norm = accelerator.clip_grad_norm_(model.parameters(), config.clip)
        with accelerator.autocast():  # Muon multiplies matrices
            for optimizer in optimizers:
                optimizer.step()
        model.zero_grad(set_to_none=True)
        task.after_step(bare, accelerator)
        step += 1
        ema.update_parameters(bare)
        before, task.share = task.share, share_done()
        if not is_main:
            continue
        bar.update()
        now = time.perf_counter()
        if step % config.log_every == 0:
            images = config.log_every * config.batch_size * processes
            record = {"step": step, **{name: round(value.item(), 5) for name, value in scalars.items()}}
            record |= {"grad": round(float(norm), 4), "lr": lr, "images_s": round(images / (now - logged), 2)}
            write_record(folder, record | {"hours": round(hours(), 4)})
            logged = now
        if int(GRIDS * task.share) > int(GRIDS * before):
            averaged = ema.module.eval()
            if (grid := task.sample(averaged)) is not None:
                (folder / "samples").mkdir(exist_ok=True)
                save_image(grid, folder / "samples" / f"{step:07d}.png")
            if held_out := task.validate(averaged):
                write_record(folder, {"step": step, "hours": round(hours(), 4), "held_out": held_out})
                said = ", ".join(f"{name} {value:.4g}" for name, value in held_out.items())
                tqdm.write(f"step {step:,}, held-out images: {said}")
        if now - saved > SAVE_SECONDS or task.share >= 1:
            state = {"step": step, "hours": hours(), **{name: part.state_dict() for name, part in parts.items()}}
            torch.save(state, content := io.BytesIO())
            write_bytes(folder / STATE, content.getbuffer())
            saved = now
    bar.close()
    accelerator.wait_for_everyone()
    return ema.module.eval()


def step_batches(
    length: int, batch_size: int, start: int, seed: int, rank: int = 0, processes: int = 1
) -> Iterator[list[int]]:
    """The indices of the items of each step from `start` on: a function of the seed and the step only.

    Each of several processes gets its part of each step; together they get what one with their whole batch would.
    Endless data are read in order, from an offset of each seed's own, so that a run that is initialized from another
    sees other data; a finite set is shuffled in each epoch.
    """
    epoch, order = -1, torch.empty(0)
    while True:
        first = (start * processes + rank) * batch_size
        batch = []
        for n in range(first, first + batch_size):
            if length > ENDLESS:
                batch.append((n + seed * SEED_STRIDE) % length)
                continue
            if n // length != epoch:
                epoch = n // length
                order = torch.randperm(length, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
            batch.append(int(order[n % length]))
        yield batch
        start += 1


def learning_rate(config: LoopConfig, step: int, share: float) -> float:
    """Share of the peak rate where a share of the run is done: linear warm-up, then a cosine down to `final_lr`."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    warm = config.warmup / config.steps if config.steps else 0.0
    cosine = 0.5 * (1 + math.cos(math.pi * (share - warm) / (1 - warm)))
    return config.final_lr + (1 - config.final_lr) * cosine


def precision(wanted: str) -> str:
    """What "auto" means on this machine: bf16 where it has instructions for it, else fp32 ("no")."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "no"


def load_state(path: Path, parts: dict[str, Any]) -> tuple[int, float]:
    """Loads the state of a run, tensors and numbers only; returns its step and hours, 0 where there is none."""
    if not path.exists():
        return 0, 0.0
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        return state["step"], state["hours"]
    except Exception as error:  # torch names no type for a damaged file
        raise InputError(
            f"{path} is damaged, or of another run ({reason_of(error)}); delete it to start {path.parent} from step 0."
        ) from error


def write_record(folder: Path, record: dict[str, Any]) -> None:
    with (folder / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps(record) + "\n")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The records of a run's log, without what a killed run left half."""
    path, records = folder / LOG, []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        with suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return records


def optimizers_for(model: nn.Module, config: LoopConfig) -> list[torch.optim.Optimizer]:
    """AdamW, which decays matrices only, and with "muon" Muon for the matrices and convolutions of blocks."""
    inner, others = list[nn.Parameter](), list[nn.Parameter]()
    for name, p in model.named_parameters():
        if p.requires_grad:
            is_inner = config.optimizer == "muon" and "block" in name and p.ndim >= 2
            (inner if is_inner else others).append(p)
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

    def __init__(self, params: list[nn.Parameter], lr: float, weight_decay: float = 0, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["velocity"] = torch.zeros_like(p)
                velocity = state["velocity"].mul_(group["momentum"]).add_(p.grad)
                nesterov = p.grad.add(velocity, alpha=group["momentum"])
                matrix = nesterov.flatten(1)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(orthogonal(matrix).view_as(p), alpha=-0.2 * max(matrix.shape) ** 0.5 * group["lr"])


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
