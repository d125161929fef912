"""Small folders of images, first stages and runs that the tests of training share; runs in several processes."""

import itertools
import json
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch._dynamo  # optimizers need it, and it takes seconds: here, so that it counts for no test
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image, ImageDraw
from tiny_models import tiny_first_stage
from torch import Tensor, nn

from imagebart.training.config import LoopConfig, StageShape
from imagebart.training.loop import Task, train

SMALL = tiny_first_stage(resolution=16, code_dim=4, codebook_size=8)
SHAPE = StageShape(width=32, depth=1, heads=2, head_size=16, encoder_depth=1, query_tokens=3)
HUES, SHAPES = ("red", "green", "blue"), ("circle", "square")


class Line(Task):
    """Fits the line y = 3 x - 1, with noise that is drawn in each step: the smallest task."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        self.model: nn.Module = nn.Linear(1, 1)
        self.dataset: Any = [{"x": torch.tensor([i / 50.0])} for i in range(50)]

    def loss(self, model: nn.Module, batch: dict[str, Any], accelerator: Accelerator) -> dict[str, Tensor]:
        noise = 0.01 * torch.randn_like(batch["x"])
        return {"loss": (model(batch["x"]) - (3 * batch["x"] - 1) + noise).square().mean()}

    def sample(self, model: nn.Module) -> Image.Image:
        return Image.new("RGB", (2, 2))


LINE_LOOP = LoopConfig(steps=40, batch_size=7, lr=0.1, warmup=5, ema=0.9, mixed_precision="no", log_every=5)


def stop_after(steps: int, task: Task) -> Task:
    """The task, whose training is interrupted after so many steps."""
    after_step, count = task.after_step, itertools.count(1)

    def interrupted(model: nn.Module, accelerator: Accelerator) -> None:
        after_step(model, accelerator)
        if next(count) == steps:
            raise KeyboardInterrupt

    task.after_step = interrupted  # type: ignore[method-assign]
    return task


def train_line(folder: Path, steps: int) -> list[Tensor]:
    """Trains a line, with its state saved at each step; returns the averaged weights."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return list(train(Line(), LINE_LOOP.replace(steps=steps, log_every=1), folder).parameters())


def draw_folder(folder: Path, kind: Literal["text", "class", "none"], count: int = 24, size: int = 40) -> Path:
    """So many images, no two of them alike, the first color and shape as often as the others."""
    random, rows = np.random.default_rng(0), []
    for i in range(count):
        color, shape = HUES[i % 3], SHAPES[i // 3 % 2]
        image = Image.new("RGB", (size, size + i % 3 * 8), tuple(int(v) for v in random.integers(200, 256, 3)))
        left, top, side = (int(v) for v in random.integers(8, size // 2, 3))
        box, pen = (left, top, left + side, top + side), ImageDraw.Draw(image)
        (pen.ellipse if shape == "circle" else pen.rectangle)(box, fill=color)
        path = folder / (color if kind == "class" else "") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        rows.append({"file_name": path.name, "text": f"a {color} {shape}", "author": f"painter {i}"})
    if kind == "text":
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def in_processes(count: int, work: Callable[[], object]) -> list[int | None]:
    """Does the work in so many forked processes at once; returns their exit codes: what it returns, 1 if it raises."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def in_one(rank: str) -> None:
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
        os.environ.update(place, RANK=rank, LOCAL_RANK=rank, ACCELERATE_USE_CPU="true")
        torch.set_num_threads(1)  # the others stayed with the parent, and would be waited for
        AcceleratorState._reset_state(reset_partial_state=True)
        sys.exit(work() or 0)  # type: ignore[arg-type]

    children = [get_context("fork").Process(target=in_one, args=(str(rank),)) for rank in range(count)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    return [child.exitcode for child in children]
