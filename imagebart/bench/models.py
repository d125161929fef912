"""What is timed: steps of the shipped model, and random weights of a published model's size."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from imagebart.diffusion import Schedule
from imagebart.models.imagebart import ImageBART
from imagebart.models.published import build_stage
from imagebart.sampling.step_run import Condition
from imagebart.sampling.steps import StageStep, Step
from imagebart.settings import SamplingSettings
from imagebart.weights.registry import MODELS

LOGITS = 6.0  # how much wider the random heads' logits are made: see published_size


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
    """Random weights at the size of a published model's coarsest stage, and of its finest.

    Their heads are scaled so that a token depends on those before it, as a trained model's does; else every draft of
    a random model would be right. How often x_t stays is set by the schedule, in a random model as in a trained one.
    """
    model = MODELS[name]
    schedule = Schedule.geometric(model.stages)
    subjects = []
    for t in (model.stages, 1):
        config = model.description(t).stage_config(t, schedule.betas[t - 1], 0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(t)
            stage = build_stage(config, model.stages).eval().requires_grad_(False)
        assert stage.decoder.head is not None
        stage.decoder.head.weight.mul_(LOGITS)
        label = f"{name}'s size, stage {t}"
        subjects.append(Subject(label, StageStep(stage), config.tokens, Condition(None, None), SamplingSettings()))
    return subjects
