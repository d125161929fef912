"""What is timed: steps of the shipped model, and random weights of a published model's size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import nn

from imagebart.atomic_io import replace_files
from imagebart.diffusion import Schedule
from imagebart.models.imagebart import About, ImageBART
from imagebart.models.stages import Stage, build_stage
from imagebart.models.vqgan import FirstStage
from imagebart.sampling.steps import Condition, StageStep, Step
from imagebart.settings import SamplingSettings
from imagebart.weights.folder import CONFIG, VERSION, ModelConfig, config_bytes, tensor_files
from imagebart.weights.published.convert import SHARD
from imagebart.weights.published.registry import MODELS, PublishedModel

LOGITS = 6.0  # how much wider the random heads' logits are made: see random_stage


@dataclass(frozen=True)
class Subject:
    """A step to time, under a condition (of one row) and settings."""

    name: str
    step: Step
    tokens: int  # N
    condition: Condition
    settings: SamplingSettings


def shipped(model: ImageBART, prompt: str) -> list[Subject]:
    """A model's steps, coarse to fine, with a prompt where it takes text, and its own settings."""
    conditioner = model.conditioner
    cond = null = None
    if conditioner.length:
        null = conditioner.null(1)
        cond = conditioner.encode([prompt]).tokens if conditioner.kind == "text" else null
    name = model.about.name or "the model"
    steps = model.sampler.steps(model.about.sampling)
    subjects = [
        Subject(f"{name}, step {t}", step, model.tokens, Condition(cond, null), model.about.sampling)
        for t, step in enumerate(steps, 1)
    ]
    return subjects[::-1]


def published_size(name: str = "ffhq_4_scales_geometric") -> list[Subject]:
    """Random weights at the size of a published model's coarsest stage, and of its finest."""
    model = MODELS[name]
    subjects = []
    for t in (model.stages, 1):
        stage = random_stage(model, t)
        label = f"{name}'s size, stage {t}"
        subjects.append(
            Subject(label, StageStep(stage), stage.config.tokens, Condition(None, None), SamplingSettings())
        )
    return subjects


def random_stage(model: PublishedModel, t: int) -> Stage:
    """Stage t of a published model with random weights.

    Its head is scaled so that a token depends on those before it, as a trained model's does; else every draft of a
    random model would be right. How often x_t stays is set by the schedule, in a random model as in a trained one.
    """
    config = model.description(t).stage_config(t, Schedule.geometric(model.stages).betas[t - 1], 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(t)
        stage = build_stage(config, model.stages).eval().requires_grad_(False)
    assert stage.decoder.head is not None
    stage.decoder.head.weight.mul_(LOGITS)
    return stage


def write_stand_in(model: PublishedModel, folder: Path) -> None:
    """A published model with random weights as `convert --dtype bf16` writes it, a stage at a time."""
    description = model.description(1)
    betas = Schedule.geometric(model.stages).betas
    stages = tuple(model.description(t).stage_config(t, beta, 0) for t, beta in enumerate(betas, 1))
    conditioner = model.named(description.conditioner).to_config()
    about = About(model.name, model.knows)
    config = ModelConfig("imagebart", VERSION, about, description.first_stage, conditioner, None, betas, stages)
    parts = chain([(CONFIG, config_bytes(config))], _files(FirstStage(description.first_stage), "first_stage"))
    replace_files(folder, parts)
    for t in range(1, model.stages + 1):
        replace_files(folder, _files(random_stage(model, t), f"stage{t}"))


def _files(module: nn.Module, stem: str) -> Iterator[tuple[str, bytes]]:
    return tensor_files(module.state_dict(), stem, torch.bfloat16, SHARD)
