"""Finished parts of a model, first stage and stages, each in its run's folder, and putting them together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from imagebart.conditioning import Conditioner, conditioner_from_config
from imagebart.config import from_dict
from imagebart.diffusion import Schedule
from imagebart.files import replace_files, settle
from imagebart.first_stage import FirstStage, FirstStageConfig
from imagebart.model import About, ImageBART
from imagebart.stage import Stage, StageConfig, build_stage
from imagebart.text_encoder import TextEncoder, TextEncoderConfig


def save_first_stage(model: FirstStage, folder: Path) -> None:
    """Writes a trained first stage to a run's folder."""
    _write(folder, asdict(model.config), model.state_dict())


def load_first_stage(folder: Path) -> FirstStage:
    """The first stage of a run's folder, frozen."""
    values, tensors = _read(folder)
    model = FirstStage(from_dict(FirstStageConfig, values))
    model.load_state_dict(tensors)
    return model.eval().requires_grad_(False)


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


def save_text_encoder(encoder: TextEncoder, conditioner: Conditioner, folder: Path) -> None:
    """Writes a trained text encoder, with the conditioner whose words it reads, to a run's folder."""
    about = {"text": asdict(encoder.config), "conditioner": conditioner.to_config()}
    _write(folder, about, encoder.state_dict())


def load_text_encoder(folder: Path, conditioner: Conditioner) -> TextEncoder:
    """The text encoder of a run's folder; raises ValueError where it reads other words than the conditioner gives."""
    values, tensors = _read(folder)
    if values["conditioner"] != conditioner.to_config():
        raise ValueError(f"the text encoder in {folder} was trained on other words or another length of text")
    encoder = TextEncoder(from_dict(TextEncoderConfig, values["text"]))
    encoder.load_state_dict(tensors)
    return encoder


def assemble(first_stage: Path, stages: Sequence[Path], about: About, text: Path | None = None) -> ImageBART:
    """The model made of the parts in these run folders, stage 1 first; text: a text encoder that replaces their own.

    Raises ValueError where they were trained with different schedules or conditioners.
    """
    loaded = [load_stage(folder) for folder in stages]
    _, schedule, conditioner = loaded[0]
    for folder, (_, other, prompts) in zip(stages, loaded, strict=True):
        if other != schedule or prompts.to_config() != conditioner.to_config():
            raise ValueError(f"{folder} was trained with another schedule or conditioner than {stages[0]}")
    if text is not None:
        encoder = load_text_encoder(text, conditioner)
        for stage, _, _ in loaded:
            stage.text.load_state_dict(encoder.state_dict())
    return ImageBART(load_first_stage(first_stage), [stage for stage, _, _ in loaded], schedule, conditioner, about)


def take_apart(model: ImageBART, folder: Path) -> list[Path]:
    """Writes a model's parts to run folders, so that training can go on from them.

    They are first-stage, captions (the text encoder, where there is one), stage1, ...
    """
    folders = [folder / "first-stage"]
    save_first_stage(model.first_stage, folders[0])
    if model.stages[0].config.text is not None:
        folders.append(folder / "captions")
        save_text_encoder(model.stages[0].text, model.conditioner, folders[-1])
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
