"""Finished parts of a model, first stage and stages, each in its run's folder, and putting them together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from imagebart.atomic_io import replace_files, settle
from imagebart.conditioning import Conditioner, TextConditioner, conditioner_from_config
from imagebart.config import from_dict
from imagebart.diffusion import Schedule
from imagebart.errors import InputError
from imagebart.models.denoiser import Denoiser, DenoiserConfig
from imagebart.models.imagebart import About, ImageBART
from imagebart.models.stages import Stage, StageConfig, build_stage
from imagebart.models.text_encoder import TextEncoder, TextEncoderConfig, with_words
from imagebart.models.vqgan import FirstStage, FirstStageConfig


def save_first_stage(model: FirstStage, folder: Path) -> None:
    """Writes a trained first stage to a run's folder."""
    _write(folder, asdict(model.config), model.state_dict())


def load_first_stage(folder: Path) -> FirstStage:
    """The first stage of a run's folder, frozen."""
    values, tensors = _read(folder)
    model = FirstStage(from_dict(FirstStageConfig, values))
    model.load_state_dict(tensors)
    return model.eval().requires_grad_(False)


def first_stage_of(folder: Path) -> FirstStage:
    """The first stage of a run's folder, or of a model's. Raises InputError where there is none."""
    try:
        if (folder / "part.json").is_file():
            return load_first_stage(folder)
        return ImageBART.from_pretrained(folder).first_stage
    except ValueError as error:
        raise InputError(f"No first stage can be taken over from {folder}: {error}") from error


def save_stage(stage: Stage, schedule: Schedule, conditioner: Conditioner, folder: Path) -> None:
    """Writes a trained stage, with the schedule and conditioner it was trained for, to a run's folder."""
    about: dict[str, Any] = {"stage": asdict(stage.config), "betas": schedule.betas}
    about["conditioner"] = conditioner.to_config()
    _write(folder, about, stage.state_dict())


def load_stage(folder: Path) -> tuple[Stage, Schedule, Conditioner]:
    """The stage of a run's folder, with its schedule and conditioner."""
    values, tensors = _read(folder)
    schedule = Schedule(tuple(values["betas"]))
    stage = build_stage(from_dict(StageConfig, values["stage"]), schedule.stages)
    stage.load_state_dict(tensors)
    return stage, schedule, conditioner_from_config(values["conditioner"])


def save_denoiser(denoiser: Denoiser, conditioner: Conditioner, folder: Path) -> None:
    """Writes a trained denoiser, with the conditioner it was trained for, to a run's folder."""
    about = {"denoiser": asdict(denoiser.config), "conditioner": conditioner.to_config()}
    _write(folder, about, denoiser.state_dict())


def load_denoiser(folder: Path) -> tuple[Denoiser, Conditioner]:
    """The denoiser of a run's folder, with its conditioner."""
    values, tensors = _read(folder)
    denoiser = Denoiser(from_dict(DenoiserConfig, values["denoiser"]))
    denoiser.load_state_dict(tensors)
    return denoiser, conditioner_from_config(values["conditioner"])


def save_text_encoder(encoder: TextEncoder, conditioner: Conditioner, folder: Path) -> None:
    """Writes a trained text encoder, with the conditioner whose words it reads, to a run's folder."""
    about = {"text": asdict(encoder.config), "conditioner": conditioner.to_config()}
    _write(folder, about, encoder.state_dict())


def read_text_encoder(folder: Path) -> tuple[TextEncoder, TextConditioner]:
    """The text encoder of a run's folder, and the conditioner whose words it reads."""
    values, tensors = _read(folder)
    encoder = TextEncoder(from_dict(TextEncoderConfig, values["text"]))
    encoder.load_state_dict(tensors)
    conditioner = conditioner_from_config(values["conditioner"])
    if not isinstance(conditioner, TextConditioner):
        raise ValueError(f"the conditioning in {folder} is of type {values['conditioner']['type']!r}, expected words")
    return encoder, conditioner


def taught_more(encoder: TextEncoder, before: TextConditioner, after: TextConditioner) -> TextEncoder:
    """The text encoder of a conditioner, made to read the words of another; it still knows those that it knew.

    Raises ValueError where the other gives another length of text.
    """
    if before.length != after.length:
        raise ValueError(f"the text encoder reads {before.length} tokens a prompt, expected {after.length}")
    return with_words(encoder, before.tokens, after.tokens)


def assemble(first_stage: Path, denoiser: Path, about: About, text: Path | None = None) -> ImageBART:
    """The model made of the parts in these run folders.

    text: a text encoder that replaces the denoiser's own, with the words it knows; raises ValueError where it misfits.
    """
    network, conditioner = load_denoiser(denoiser)
    if text is not None:
        encoder, conditioner = read_text_encoder(text)
        network.read_with(encoder)
    return ImageBART(load_first_stage(first_stage), network, conditioner, about)


def assemble_stages(first_stage: Path, stages: Sequence[Path], about: About, text: Path | None = None) -> ImageBART:
    """The model made of a first stage and published kinds of stages, stage 1 first.

    text: a text encoder that replaces their own, with the words it knows.
    Raises ValueError where they were trained with different schedules or conditioners, or where the text encoder does
    not fit them.
    """
    loaded = [load_stage(folder) for folder in stages]
    _, schedule, conditioner = loaded[0]
    for folder, (_, other, prompts) in zip(stages, loaded, strict=True):
        if other != schedule or prompts.to_config() != conditioner.to_config():
            raise ValueError(f"{folder} was trained with another schedule or conditioner than {stages[0]}")
    if text is not None:
        encoder, conditioner = read_text_encoder(text)
        for stage, _, _ in loaded:
            stage.read_with(encoder)
    first = load_first_stage(first_stage)
    return ImageBART(first, [stage for stage, _, _ in loaded], conditioner, about, schedule)


def take_apart(model: ImageBART, folder: Path) -> list[Path]:
    """Writes a model's parts to run folders, so that training can go on from them.

    They are first-stage, captions (the text encoder, where there is one), and denoiser, or stage1, ...
    """
    folders = [folder / "first-stage"]
    save_first_stage(model.first_stage, folders[0])
    if model.text is not None:
        folders.append(folder / "captions")
        save_text_encoder(model.text, model.conditioner, folders[-1])
    if model.denoiser is not None:
        folders.append(folder / "denoiser")
        save_denoiser(model.denoiser, model.conditioner, folders[-1])
    for t, stage in enumerate(model.stages, 1):
        folders.append(folder / f"stage{t}")
        save_stage(stage, model.schedule, model.conditioner, folders[-1])
    return folders


def _write(folder: Path, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    stored = save({k: v.detach().contiguous().cpu() for k, v in tensors.items()})
    replace_files(folder, [("part.safetensors", stored), ("part.json", json.dumps(values, indent=1).encode())])


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    settle(folder)
    if not (folder / "part.json").is_file():
        raise ValueError(f"{folder} holds no finished part (part.json); train it first")
    return json.loads((folder / "part.json").read_text()), load_file(folder / "part.safetensors")
