"""Small folders of images, first stages and runs that the tests of training share; runs in several processes."""

import itertools
import json
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import torch._dynamo  # optimizers need it, and it takes seconds: here, so that it counts for no test
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image, ImageDraw
from tiny_models import tiny_first_stage
from torch import Tensor, nn

from imagebart.model import ImageBART
from imagebart.models.vqgan import FirstStage
from imagebart.training.config import DenoiserRun, LoopConfig, StageRun, StageShape
from imagebart.training.data import INDEX, PIXELS, ImageStore, StoreIndex
from imagebart.training.loop import Task, train

SMALL = tiny_first_stage(resolution=16, code_dim=4, codebook_size=8)
SHAPE = StageShape(width=32, depth=1, heads=2, head_size=16, encoder_depth=1, query_tokens=3)
COLORS = {"dark": 20, "light": 235}

HUES, SHAPES = ("red", "green", "blue"), ("circle", "square")

R = TypeVar("R", DenoiserRun, StageRun)


def two_classes(run_class: type[R], folder: Path, **settings: Any) -> R:
    """A run on two classes, each of one color, and on a random first stage."""
    for name, color in COLORS.items():
        (folder / "data" / name).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (16, 16), (color + i,) * 3).save(folder / "data" / name / f"{i}.png")
    ImageBART(FirstStage(SMALL)).save_pretrained(folder / "first")
    loop = LoopConfig(steps=80, batch_size=8, lr=1e-2, warmup=5, ema=0.5, mixed_precision="no")
    places = {"data": str(folder / "data"), "first_stage": str(folder / "first")}
    return run_class(**places, loop=loop, shape=SHAPE, conditioning="class", **settings)


def write_store(folder: Path, texts: tuple[str, ...], kind: str = "none", held_out: int = 0) -> ImageStore:
    """A store of random images of 32 pixels with these texts, the first ones held out."""
    count, side = len(texts), 36
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    (folder / PIXELS).write_bytes(pixels.tobytes())
    held = tuple(i < held_out for i in range(count))
    names = tuple(map(str, range(count)))
    index = StoreIndex(resolution=32, kind=kind, names=names, texts=texts, held_out=held)
    (folder / INDEX).write_text(index.model_dump_json())
    return ImageStore(folder)


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


def in_processes(count: int, work: Callable[[], object]) -> list[int]:
    """Does the work in so many forked processes at once; returns their exit codes: what it returns, 1 if it raises."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    children = []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.environ.update(common, RANK=str(rank), LOCAL_RANK=str(rank), ACCELERATE_USE_CPU="true")
                torch.set_num_threads(1)  # the others stayed with the parent, and would be waited for
                AcceleratorState._reset_state(reset_partial_state=True)
                code = int(work() or 0)  # type: ignore[call-overload]
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
