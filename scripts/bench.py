"""Times a model on this machine, one row of a Markdown table a number of scales.

    python scripts/bench.py                                             the avatars
    python scripts/bench.py ffhq_4_scales_geometric --random runs/bench a published model's shapes, random weights

A 25 % mask is the center of an image of the model's size. The first preview is the first event after the noise. Each
time is the shortest of `--repeats` runs. The original's way has a key/value cache in the coarsest, decoder-only stage
alone: elsewhere every token runs the decoder over all tokens before it; one token in sixteen is timed. Memory is what
the process holds of its own (without mapped files), so time one model a process. A second table says where the time of
an edit goes. --graphs: a third one has the networks by PyTorch and by ONNX Runtime, 64 tokens at once, two images.
"""

import argparse
import platform
import re
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from PIL import Image

from imagebart import pipeline
from imagebart.imaging.masks import preset
from imagebart.model import ImageBART
from imagebart.models.denoiser import Denoiser, Stage
from imagebart.models.diffusion import Schedule
from imagebart.models.imagebart import About
from imagebart.models.transformer import Cache
from imagebart.models.vqgan import FirstStage
from imagebart.pipeline import Pipeline, PipelineEvent
from imagebart.sampling import steps
from imagebart.sampling.steps import ChainState, Step, StepRun
from imagebart.weights.onnx_export import export_graphs, graphs
from imagebart.weights.registry import MODELS, PublishedModel

EVERY = 16  # one in so many tokens of the original's way is timed
LOGIT_SCALE = 6.0  # of random heads, so that a token depends on those before it, as a trained model's does
STATUS = Path("/proc/self/status")
HEADINGS = (
    *("model", "T", "ready", "whole image", "its first preview", "25 % mask", "its first preview"),
    *("own memory", "the original's way", "speed-up"),
)


def random_model(model: PublishedModel) -> ImageBART:
    """A published model with random weights. Its schedule sets how often x_t stays, as in the trained one."""
    published = model.stage(1)
    schedule = Schedule.geometric(model.stages)
    stages = []
    torch.manual_seed(0)
    for t in range(1, model.stages + 1):
        config = model.stage(t).config.replace(t=t, beta=schedule.betas[t - 1])
        stage = Stage(config, model.stages).eval().requires_grad_(False)
        stage.decoder.get_parameter("head.weight").mul_(LOGIT_SCALE)
        stages.append(stage)
    about = About(name=model.name, knows=model.domain)
    conditioner = model.with_class_names(published.conditioner)
    return ImageBART(FirstStage(published.first_stage), stages, conditioner, about, schedule)


def timed(run: Callable[[], Iterable[PipelineEvent]]) -> tuple[float, float, int]:
    """Seconds until the result, seconds until the first preview, most bytes that the process held of its own."""
    began, first, memory = time.perf_counter(), 0.0, 0
    for event in run():
        event.images  # noqa: B018 - as whoever shows them does
        first = first or (time.perf_counter() - began if event.kind != "start" else 0.0)
        held = re.search(r"RssAnon:\s+(\d+)", STATUS.read_text()) if STATUS.is_file() else None
        memory = max(memory, 1024 * int(held[1]) if held else 0)
    return time.perf_counter() - began, first, memory


@torch.no_grad()
def original_seconds(model: ImageBART, scales: int) -> float:
    """Seconds of one image sampled as in 2021: the encoder once a stage, then a pass of the decoder for each token.

    A pass is over all tokens before it; in the decoder-only coarsest stage, which alone had a key/value cache, over the
    last. A denoiser is timed for one scale, which counts for all.
    """
    tokens, total = torch.zeros(1, model.tokens, dtype=torch.long), 0.0
    for network in [model.denoiser] if model.denoiser is not None else model.stages:
        decoder, encoder = network.decoder, network.encoder
        began = time.perf_counter()
        if encoder is not None:
            encoded = encoder(torch.zeros(1, encoder.config.positions, dtype=torch.long))
        else:
            cache = Cache(torch.zeros(1, 1 + network.config.cond_length, dtype=torch.long))
            cache.allocate(decoder)
        total += time.perf_counter() - began
        for position in range(EVERY // 2, model.tokens, EVERY):
            began = time.perf_counter()
            if encoder is not None:
                hidden = decoder(tokens[:, :position], None, decoder.cross_kv(encoded))[:, -1:]
            else:
                hidden = decoder.decode(tokens, cache, [position], 1)
            decoder.head(hidden)
            total += EVERY * (time.perf_counter() - began)
    total *= 1 if model.stages else scales
    began = time.perf_counter()
    model.first_stage.decode(tokens)
    return total + time.perf_counter() - began


def row(source: str, scales: int | None, repeats: int, words: str) -> list[str]:
    """The cells of one model and number of scales."""
    began = time.perf_counter()
    pipe = Pipeline.from_pretrained(source)
    ready = time.perf_counter() - began
    settings = pipe.defaults if scales is None else pipe.defaults.replace(scales=scales)
    prompt = pipe.classes[0] if pipe.classes else words if pipe.vocabulary else None
    size = (pipe.image_size, pipe.image_size)
    images, mask = [Image.new("RGB", size, (128, 128, blue)) for blue in range(repeats)], preset("center", size)
    whole = [timed(partial(pipe.generate, prompt, seed=0, settings=settings)) for _ in range(repeats)]
    edits = [timed(partial(pipe.edit, image, mask, prompt, seed=0, settings=settings)) for image in images]
    memory = max(run[2] for run in whole + edits)
    original = original_seconds(pipe.model, scales or pipe.stages)
    seconds = [min(run[i] for run in runs) for runs in (whole, edits) for i in (0, 1)]
    times = [f"{value:.3g}" for value in seconds]
    held = f"{memory / 1e9:.2f} GB" if memory else ""
    speed_up = f"{original / seconds[0]:.0f}"
    return [pipe.name, str(scales or pipe.stages), f"{ready:.1f}", *times, held, f"{original:.1f}", speed_up]


PARTS: dict[str, list[tuple[Any, str]]] = {  # of an edit, what computes them
    "encoder": [(Denoiser, "prepare"), (Denoiser, "draft_logits")],
    "decoder": [(StepRun, "logits")],
    "choice of tokens": [(steps, "filter_logits"), (ChainState, "gumbel"), (Step, "reverse")],
    "images of tokens": [(FirstStage, "decode")],
    "blending": [(pipeline, "blend")],
}


def shares(pipe: Pipeline, words: str | None, scales: int | None) -> dict[str, float]:
    """Milliseconds of each part of an edit, and of the rest."""
    spent, size = dict.fromkeys(PARTS, 0.0), (pipe.image_size, pipe.image_size)
    image, mask = Image.new("RGB", size, "gray"), preset("center", size)

    def clocked(function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = function(*args, **kwargs)
            spent[part] += time.perf_counter() - began
            return result

        return run

    settings = pipe.defaults.replace(scales=scales or pipe.defaults.scales)
    with ExitStack() as patches:
        for part, functions in PARTS.items():
            for where, name in functions:
                patches.enter_context(patch.object(where, name, clocked(getattr(where, name), part)))
        began = time.perf_counter()
        for event in pipe.edit(image, mask, words, seed=0, settings=settings):
            event.images  # noqa: B018 - as whoever shows them does
        total = time.perf_counter() - began
    parts = {**spent, "rest": total - sum(spent.values()), "in all": total}
    return {part: 1000 * seconds for part, seconds in parts.items()}


def compare_runtimes(model: ImageBART, folder: Path, repeats: int) -> None:
    """A table: milliseconds of each network by PyTorch, with packed weights, and by ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    export_graphs(graphs(model, 64), folder)
    assert model.denoiser is not None
    model.denoiser = model.sampler.packed(model.denoiser)  # the graphs are made of PyTorch's own layers
    print(f"\n| network | PyTorch {torch.__version__} | ONNX Runtime {onnxruntime.__version__} |\n|---|---:|---:|")
    for name, graph in graphs(model, 64).items():
        session = onnxruntime.InferenceSession(folder / f"{name}.onnx", options)
        feeds = {one.name: given.numpy() for one, given in zip(session.get_inputs(), graph.example, strict=True)}
        times = []
        for run in (partial(graph.network, *graph.example), partial(session.run, None, feeds)):
            each = []
            for _ in range(4 * repeats):
                began = time.perf_counter()
                run()
                each.append(time.perf_counter() - began)
            times.append(f"{1000 * min(each):.1f}")
        print(f"| {name} | {' | '.join(times)} |", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="checkpoints/avatars", help="a folder, or a published model's name")
    parser.add_argument("--random", type=Path, help="folder where random weights of published shapes are kept")
    parser.add_argument("--scales", type=int, nargs="*", default=[None], help="T, where it can be chosen")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--graphs", type=Path, help="an empty folder, for ONNX graphs")
    parser.add_argument("--prompt", default="a woman with long red hair", help="of models that take words")
    given = parser.parse_args(arguments)
    source = given.model
    if given.random is not None:
        source = given.random / given.model
        if not source.is_dir():
            random_model(MODELS[given.model]).save_pretrained(source, dtype="bfloat16")
    names = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if STATUS.is_file() else None
    cpu = names[1] if names else platform.processor() or platform.machine()
    print(f"{cpu}, {torch.get_num_threads()} threads, torch {torch.__version__}\n", flush=True)
    print("| " + " | ".join(HEADINGS) + " |\n|---|" + "---:|" * (len(HEADINGS) - 1), flush=True)
    for scales in given.scales:
        print("| " + " | ".join(row(str(source), scales, given.repeats, given.prompt)) + " |", flush=True)
    pipe = Pipeline.from_pretrained(str(source))
    words = pipe.classes[0] if pipe.classes else given.prompt if pipe.vocabulary else None
    print("\n| of an edit, milliseconds | " + " | ".join([*PARTS, "rest", "in all"]) + " |\n" + "|---" * 8 + "|")
    for scales in given.scales:
        runs = [shares(pipe, words, scales) for _ in range(given.repeats)]
        shortest = min(runs, key=lambda run: run["in all"])
        print(f"| T = {scales or pipe.stages} | " + " | ".join(f"{value:.0f}" for value in shortest.values()) + " |")
    if given.graphs:
        compare_runtimes(pipe.model, given.graphs, given.repeats)


if __name__ == "__main__":
    main()
