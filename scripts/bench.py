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
import cProfile
import inspect
import platform
import re
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from timeit import repeat
from typing import Any

import torch
from PIL import Image

from imagebart.imaging.blending import blend
from imagebart.imaging.masks import preset
from imagebart.model import ImageBART
from imagebart.models.denoiser import Denoiser, Stage
from imagebart.models.diffusion import Schedule
from imagebart.models.imagebart import About
from imagebart.models.transformer import Cache
from imagebart.models.vqgan import FirstStage
from imagebart.pipeline import Pipeline, PipelineEvent
from imagebart.sampling.steps import ChainState, Step, StepRun, filter_logits
from imagebart.weights.onnx_export import export_graphs, graphs
from imagebart.weights.registry import MODELS, PublishedModel

EVERY = 16  # one in so many tokens of the original's way is timed
LOGIT_SCALE = 6.0  # of random heads, so that a token depends on those before it, as a trained model's does
STATUS = Path("/proc/self/status")
HEADINGS = "model | T | ready | whole image | its first preview | 25 % mask | its first preview | own memory"
HEADINGS += " | the original's way | speed-up"


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


def row(pipe: Pipeline, prompt: str | None, scales: int, repeats: int) -> list[str]:
    """The cells of one number of scales, from the time of a whole image on."""
    settings, size = pipe.defaults.replace(scales=scales), (pipe.image_size, pipe.image_size)
    images, mask = [Image.new("RGB", size, (128, 128, blue)) for blue in range(repeats)], preset("center", size)
    whole = [timed(partial(pipe.generate, prompt, seed=0, settings=settings)) for _ in range(repeats)]
    edits = [timed(partial(pipe.edit, image, mask, prompt, seed=0, settings=settings)) for image in images]
    memory, original = max(run[2] for run in whole + edits), original_seconds(pipe.model, scales)
    seconds = [min(run[i] for run in runs) for runs in (whole, edits) for i in (0, 1)]
    held = f"{memory / 1e9:.2f} GB" if memory else ""
    return [*(f"{value:.3g}" for value in seconds), held, f"{original:.1f}", f"{original / seconds[0]:.0f}"]


PARTS: dict[str, tuple[Callable[..., Any], ...]] = {  # of an edit, what computes them
    "encoder": (Denoiser.prepare, Denoiser.draft_logits),
    "decoder": (StepRun.logits,),
    "choice of tokens": (filter_logits, ChainState.gumbel, Step.reverse),
    "images of tokens": (FirstStage.decode,),
    "blending": (blend,),
}


def shares(pipe: Pipeline, prompt: str | None, scales: int) -> dict[str, float]:
    """Milliseconds of each part of an edit, and of the rest, by cProfile."""
    settings, size = pipe.defaults.replace(scales=scales), (pipe.image_size, pipe.image_size)
    run = pipe.edit(Image.new("RGB", size, "gray"), preset("center", size), prompt, seed=0, settings=settings)
    profile, began = cProfile.Profile(), time.perf_counter()
    profile.runcall(lambda: [event.images for event in run])
    total = 1000 * (time.perf_counter() - began)
    known = {entry.code: 1000 * entry.totaltime for entry in profile.getstats()}  # that of what they call included
    codes = {part: [inspect.unwrap(function).__code__ for function in functions] for part, functions in PARTS.items()}
    spent = {part: sum(known.get(code, 0.0) for code in of_part) for part, of_part in codes.items()}
    return {**spent, "rest": total - sum(spent.values()), "in all": total}


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
        runs = partial(graph.network, *graph.example), partial(session.run, None, feeds)
        times = [1000 * min(repeat(run, number=1, repeat=4 * repeats)) for run in runs]
        print(f"| {name} | {' | '.join(f'{time:.1f}' for time in times)} |", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="checkpoints/avatars", help="a folder, or a published model's name")
    parser.add_argument("--random", type=Path, help="folder where random weights of published shapes are kept")
    parser.add_argument("--scales", type=int, nargs="*", help="T, where it can be chosen")
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
    print(f"| {HEADINGS} |\n|---|" + "---:|" * HEADINGS.count("|"), flush=True)
    began = time.perf_counter()
    pipe = Pipeline.from_pretrained(str(source))
    ready = f"{time.perf_counter() - began:.1f}"
    prompt = pipe.classes[0] if pipe.classes else given.prompt if pipe.vocabulary else None
    numbers = given.scales or [pipe.stages]
    for scales in numbers:
        cells = [pipe.name, str(scales), ready, *row(pipe, prompt, scales, given.repeats)]
        print("| " + " | ".join(cells) + " |", flush=True)
    print("\n| of an edit, milliseconds | " + " | ".join([*PARTS, "rest", "in all"]) + " |\n" + "|---" * 8 + "|")
    for scales in numbers:
        runs = [shares(pipe, prompt, scales) for _ in range(given.repeats)]
        shortest = min(runs, key=lambda run: run["in all"])
        print(f"| T = {scales} | " + " | ".join(f"{value:.0f}" for value in shortest.values()) + " |")
    if given.graphs:
        compare_runtimes(pipe.model, given.graphs, given.repeats)


if __name__ == "__main__":
    main()
