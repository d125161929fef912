"""A model put together from the trained parts in run folders, and taken apart into them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from imagebart.model import ImageBART
from imagebart.models.denoiser import Denoiser
from imagebart.models.imagebart import About
from imagebart.models.stages import Stage
from imagebart.models.vqgan import FirstStage
from imagebart.training.token_task import load_text_encoder
from imagebart.weights.folder import Part, load_part, save_part


def assemble(first_stage: Path, networks: Path | Sequence[Path], about: About, text: Path | None = None) -> ImageBART:
    """The model made of the parts in these run folders.

    networks: a denoiser, or the stages of a published kind, stage 1 first. text: a text encoder that replaces the
    networks' own, with the words it knows. Raises ValueError where stages were trained for different schedules or
    conditioners, or where the text encoder does not fit.
    """
    if isinstance(networks, Path):
        parts: list[Part] = [load_part(networks, Denoiser)]
    else:
        parts = [load_part(folder, Stage) for folder in networks]
        for folder, part in zip(networks, parts, strict=True):
            if (part.schedule, part.conditioner) != (parts[0].schedule, parts[0].conditioner):
                raise ValueError(f"{folder} was trained with another schedule or conditioner than {networks[0]}")
    conditioner, modules = parts[0].conditioner, [part.module for part in parts]
    if text is not None:
        encoder, conditioner = load_text_encoder(text)
        for module in modules:
            module.set_text_encoder(encoder)
    network = modules[0] if isinstance(networks, Path) else modules
    return ImageBART(load_part(first_stage, FirstStage).module, network, conditioner, about, parts[0].schedule)


def take_apart(model: ImageBART, folder: Path) -> list[Path]:
    """Writes a model's parts to run folders, so that training can go on from them.

    They are first-stage, captions (the text encoder, where there is one), and denoiser, or stage1, ...
    """
    parts: dict[str, Part] = {"first-stage": Part(model.first_stage)}
    if model.text is not None:
        parts["captions"] = Part(model.text, model.conditioner)
    if model.denoiser is not None:
        parts["denoiser"] = Part(model.denoiser, model.conditioner)
    for t, stage in enumerate(model.stages, 1):
        parts[f"stage{t}"] = Part(stage, model.conditioner, model.schedule)
    for name, part in parts.items():
        save_part(part, folder / name)
    return [folder / name for name in parts]
