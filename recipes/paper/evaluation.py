"""How well an experiment's arms complete held-out images: likelihood of the truth, and samples beside it."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from imagebart.core.atomic_io import write_text
from imagebart.core.errors import InputError
from imagebart.core.settings import SamplingSettings
from imagebart.evaluation.metrics import mean_of, two_sample_test
from imagebart.imaging.figures import sheet
from imagebart.imaging.files import save_image, to_images
from imagebart.imaging.masks import preset_array
from imagebart.model import ImageBART
from imagebart.models.diffusion import add_uniform_noise, posterior
from imagebart.models.vqgan import FirstStage
from imagebart.sampling.sampler import probabilities
from imagebart.sampling.steps import ChainEvent, KnownTokens, sample_step
from imagebart.training.masks import brush_stroke
from recipes.avatars.evaluation import read_all
from recipes.paper.training import TOKENS, Experiment, load_arm

BATCH = 32
DRAWS = 4  # of noise, for a bound
ROUNDS = (1, 3)  # forward-backward
TOP_SHARE = 1 / 4  # of all codes, with top-k, in the finest stage
TEST_SIDE = 64  # pixels a side of the two-sample test's images, and of the figure's
SHOWN = 8  # images of a mask in the figure


def masks(images: int, tokens: int, seed: int) -> dict[str, Tensor]:
    """What is masked of each image, bool [images, N], by the mask's name."""
    side = math.isqrt(tokens)
    presets = {"whole image": "everything", "upper half": "upper half", "lower half": "lower half"}
    presets["outpainting"] = "border"
    known = {name: torch.from_numpy(preset_array(preset, side)).flatten() for name, preset in presets.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        strokes = torch.stack([brush_stroke(side).flatten() for _ in range(images)])
    return {name: mask.expand(images, -1) for name, mask in known.items()} | {"free-form": strokes}


@torch.no_grad()
def bound(model: ImageBART, x0: Tensor, masked: Tensor, seed: int) -> Tensor:
    """An upper bound on -log p(masked tokens of x0 | the others), of each image, float [B], in nats a masked token.

    p is that of a chain whose kept tokens are clean at every t. Step t adds KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} |
    x_t)); for T = 1 that is -log p itself. Of a denoiser it is that of T = 1. x0: int64 [B, N]; masked: bool [B, N].
    """
    if model.denoiser is not None:
        x_t, level = add_uniform_noise(x0, masked.float(), model.vocab_size), masked.float()
        logits = model.denoiser.logits(x0, x_t, level, torch.zeros_like(level))
        return (F.cross_entropy(logits.mT, x0, reduction="none") * masked).sum(1) / masked.sum(1)
    generator, total = torch.Generator().manual_seed(seed), torch.zeros(len(x0))
    draws = DRAWS if len(model.stages) > 1 else 1
    for stage in list(model.stages) * draws:
        t, size = stage.config.t, model.vocab_size
        x_s = add_uniform_noise(x0, (1 - model.schedule.alphacum(t - 1)) * masked, size, generator)
        x_t = add_uniform_noise(x_s, stage.config.beta * masked, size, generator)
        target = posterior(x_t, x0, t, model.schedule, size)
        divergence = torch.xlogy(target, target) - target * stage(x_s, x_t).log_softmax(-1)
        total += (divergence.sum(-1) * masked).sum(1) / draws
    return total / masked.sum(1)


@torch.no_grad()
def complete(model: ImageBART, x0: Tensor, masked: Tensor, rounds: int, cut: bool, seed: int) -> Tensor:
    """x0 [B, N] with the masked tokens sampled, with forward-backward rounds as the original has them.

    Kept tokens are clean in a stage's first round; in later ones they are as noisy as the others, and forced in what is
    sampled. The decoder-only stage does not see x_t, so that it has one round. cut: top-k, linear in t from all codes
    in the coarsest stage to TOP_SHARE in the finest, as the original's pages offer.
    """
    few, scales = round(TOP_SHARE * model.vocab_size), len(model.stages)
    if model.denoiser is not None:
        return model.sample(known=x0, keep=~masked, batch_size=len(x0), seed=seed, top_k=few if cut else None)
    state = model.sampler.prepare(len(x0), SamplingSettings(), known=KnownTokens(x0, ~masked), seed=seed)
    x = state.x
    for step, stage in reversed(list(zip(state.steps, model.stages, strict=True))):
        top_k = few + round((model.vocab_size - few) * (stage.config.t - 1) / max(scales - 1, 1))
        settings, count = SamplingSettings(top_k=top_k if cut else None), 1 if stage.encoder is None else rounds
        for number in range(count):
            x_t = state.add_noise(x, (1 - number / count) * step.beta) if number else x
            event = ChainEvent(tokens=x_t, stage=stage.config.t, stages=1, resample_index=number, resamples=count)
            drafts = torch.where(masked, x_t, x0)
            *_, last = sample_step(step, replace(state, x=x_t), settings, state.gumbel(), event, drafts)
            x = last.tokens
    return x


def completed(model: ImageBART, x0: Tensor, masked: Tensor, rounds: int, cut: bool, seed: int) -> Tensor:
    """`complete` of many images, in batches."""
    parts = enumerate(zip(x0.split(BATCH), masked.split(BATCH), strict=True))
    return torch.cat([complete(model, *part, rounds, cut, seed + BATCH * number) for number, part in parts])


def surprise(reference: ImageBART, x: Tensor, masked: Tensor) -> Tensor:
    """-log p of each masked token given all others, by a denoiser: means of images, float [B], in nats."""
    assert reference.denoiser is not None
    state = reference.sampler.prepare(len(x), SamplingSettings(), known=KnownTokens(x, ~masked), seed=0)
    with torch.no_grad():
        chances = probabilities(reference.denoiser, state, x, state.uniform())
    return -chances.log().sum(1) / masked.sum(1)


@torch.no_grad()
def decoded(first_stage: FirstStage, tokens: Tensor) -> Tensor:
    """Images [B, 3, S, S] in [-1, 1]."""
    return torch.cat([first_stage.decode(part).clamp(-1, 1) for part in tokens.split(BATCH)])


def pixels(masked: Tensor, size: int) -> Tensor:
    """Masks of tokens, bool [B, N], as float [B, 1, size, size]."""
    side = math.isqrt(masked.shape[1])
    return F.interpolate(masked.view(-1, 1, side, side).float(), (size, size))


def border_difference(images: Tensor, masked: Tensor) -> Tensor:
    """Mean difference of the pixels beside a mask's border, [B] levels: images [B, 3, S, S], bool [B, N]."""
    inside, total, count = pixels(masked, images.shape[-1]), torch.zeros(len(images)), torch.zeros(len(images))
    for dim in (-1, -2):
        crossing = inside.diff(dim=dim).abs()
        total += (images.diff(dim=dim).abs().mean(1, keepdim=True) * crossing).sum((1, 2, 3))
        count += crossing.sum((1, 2, 3))
    return 127.5 * total / count


def figures(
    experiment: Experiment, model: ImageBART, reference: ImageBART | None, x0: Tensor, seed: int
) -> Iterator[tuple[str, list[float]]]:
    """All measures of an arm, of each of the held-out images with tokens x0 [B, N], or one number for all."""
    truth = decoded(model.first_stage, x0)
    colors = background_and_skin(truth) if isinstance(experiment.first_stage, str) else None
    for name, masked in masks(len(x0), x0.shape[1], seed).items():
        parts = enumerate(zip(x0.split(BATCH), masked.split(BATCH), strict=True))
        bounds = torch.cat([bound(model, *part, seed + number) for number, part in parts])
        yield f"{name}: bound, nats a token", bounds.tolist()
        rounds_of_arm = ROUNDS if len(model.stages) > 1 else ROUNDS[:1]
        for rounds, cut in product(rounds_of_arm, (False, True)) if name != "whole image" else ():
            began = time.process_time()
            x = completed(model, x0, masked, rounds, cut, seed)
            seconds = (time.process_time() - began) / len(x0)
            label = f"{name}, rounds {rounds}{', top-k' if cut else ''}"
            yield f"{label}: tokens right, %", (100 * ((x == x0) & masked).sum(1) / masked.sum(1)).tolist()
            images = decoded(model.first_stage, x)
            edge = border_difference(images, masked) - border_difference(truth, masked)
            yield f"{label}: color across the border, levels", edge.tolist()
            error = 127.5 * (images - truth).abs().mean((1, 2, 3)) / masked.float().mean(1)
            yield f"{label}: error, levels", error.tolist()
            if reference is not None and model.denoiser is None:
                more = surprise(reference, x, masked) - surprise(reference, x0, masked)
                yield f"{label}: surprise over the truth's, nats a token", more.tolist()
            if colors is not None:
                same = [one == other for one, other in zip(background_and_skin(images), colors, strict=True)]
                yield f"{label}: background and skin, %", [100.0 * right for right in same]
            if not cut:
                real, made = (F.interpolate(part, (TEST_SIDE, TEST_SIDE), mode="area") for part in (truth, images))
                told = two_sample_test(real, made, experiment.test_steps, seed)
                yield f"{label}: two-sample test, %", [100 * told.value]
                yield f"{label}: CPU time an image, ms", [1000 * seconds]


def background_and_skin(images: Tensor) -> list[tuple[str, str]]:
    """The colors that the attribute classifier reads in images of avatars."""
    return [(found.background, found.skin) for found in read_all(to_images(images))]


def evaluate_all(experiment: Experiment, folder: Path, seed: int, first: int, count: int) -> None:
    """Measures the arms that are trained, each once, and writes a table and pictures to an experiment's folder."""
    held_out = load_file(folder / TOKENS)["held_out"].long()
    order = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(0))  # files are sorted by kind
    x0 = held_out[order[first : first + count]]
    models = {name: model for name, arm in experiment.arms.items() if (model := load_arm(name, arm, folder))}
    if not models or len(x0) < 2:
        raise InputError(
            f"{folder} has {len(models)} trained arms and {len(x0)} such images, expected at least 1 and 2."
        )
    known, rows = dict[str, dict[str, list[float]]](), list[tuple[str, Tensor]]()
    shown = {name: mask[:SHOWN] for name, mask in masks(len(x0), x0.shape[1], seed).items() if name != "whole image"}
    hidden, few = torch.cat(list(shown.values())), x0[:SHOWN].repeat(len(shown), 1)
    reference = next((model for model in models.values() if model.denoiser is not None), None)
    for name, model in models.items():
        path = folder / name / f"figures-{seed}-{first}-{count}.json"
        if not path.exists():
            write_text(path, json.dumps(dict(figures(experiment, model, reference, x0, seed))) + "\n")
        known[name] = json.loads(path.read_text(encoding="utf-8"))
        if not rows:
            images = decoded(model.first_stage, few)
            rows += [("truth", images), ("given", images * (1 - pixels(hidden, images.shape[-1])))]
        rows.append((name, decoded(model.first_stage, completed(model, few, hidden, ROUNDS[-1], False, seed))))
    write_text(folder / "figures.md", table(known))
    save_image(
        sheet([to_images(row) for _, row in rows], TEST_SIDE, names=[n for n, _ in rows]), folder / "figures.png"
    )


def table(known: dict[str, dict[str, list[float]]]) -> str:
    """Markdown, a column for each arm: means with their intervals, and of the differences to the first arm.

    Differences are of the same images and masks, from the first arm's completions of one round.
    """
    first = next(iter(known.values()), {})
    lines = [["measure", *known], ["---"] * (1 + len(known))]
    for label in dict.fromkeys(label for figures_of_arm in known.values() for label in figures_of_arm):
        other = first.get(label.replace(f"rounds {ROUNDS[-1]}", f"rounds {ROUNDS[0]}"), [])
        cells = []
        for figures_of_arm in known.values():
            values = figures_of_arm.get(label, [])
            cell = interval(values)
            if figures_of_arm is not first and len(values) == len(other) > 1:
                cell += f"; {interval([value - base for value, base in zip(values, other, strict=True)])}"
            cells.append(cell)
        lines.append([label, *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def interval(values: list[float]) -> str:
    """A mean with its interval."""
    if len(values) < 2:
        return "".join(f"{value:.3g}" for value in values)
    return "{:.3g} ({:.3g} to {:.3g})".format(*mean_of(values))
